# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What can go wrong with a service or a call, as exceptions.

Raised in whichever thread makes the call: a pool thread on the serving side, any thread on the calling side.
Nothing here is ever pickled: an error travels as its type's name, its message and its traceback's text
(encoding.py), and the calling side rebuilds one of the classes below from the name, or a plain CallFailed.
"""

from __future__ import annotations

import traceback
from typing import Dict, Optional, Type


class Error(Exception):
    """A service or a pool was set up wrongly: a mistake in the program, never caused by what a caller sends."""


class CallFailed(Exception):
    """A call did not give a value.

    Attributes:
        type_name: fully qualified name (str) of the exception's class on the side that served the call.
        message: text of that exception (str).
        traceback_text: formatted traceback of the serving side (str), empty when there is none.
    A call on the pool of the own process has the original exception as ``__cause__``.
    """

    def __init__(self, message: str, type_name: Optional[str] = None, traceback_text: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.type_name = type_name or _qualified_name(type(self))
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return self.message if self.type_name == _qualified_name(type(self)) else f"{self.type_name}: {self.message}"


class InvalidRequest(CallFailed):
    """The message is no service call, names an unknown service or method, or has wrong arguments."""


class Unauthorized(CallFailed):
    """A policy of the method does not allow this caller."""


class NotActivated(CallFailed):
    """The service is not active in that process and the caller may not activate it."""


class Overloaded(CallFailed):
    """The pool holds as many unanswered calls as it may. Nothing was run: the call can be repeated later."""


class ShuttingDown(CallFailed):
    """The pool is closing or closed. A method that was already running may or may not have had its effect."""


class DeadlineExceeded(CallFailed):
    """No answer within the call's deadline. A call still queued is not run; a running one is not interrupted."""


class ConnectionLost(CallFailed):
    """The connection to the serving process went away before the answer came, or it has no such handle."""


def _qualified_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


_KNOWN: Dict[str, Type[CallFailed]] = {
    _qualified_name(cls): cls
    for cls in (
        CallFailed, InvalidRequest, Unauthorized, NotActivated, Overloaded, ShuttingDown, DeadlineExceeded,
        ConnectionLost,
    )
}


def failure_from_exception(exc: BaseException) -> CallFailed:
    """Describe *exc*, caught while a call was served. A CallFailed of the framework is returned as it is."""
    if isinstance(exc, CallFailed):
        return exc
    text = "".join(traceback.format_tb(exc.__traceback__))
    try:
        message = str(exc)
    except Exception:  # a class of the service's author: its __str__ may fail, the caller still needs an answer
        message = "(the exception has no printable message)"
    failure = CallFailed(message, _qualified_name(type(exc)), text)
    failure.__cause__ = exc
    return failure


def failure_from_names(type_name: str, message: str, traceback_text: str) -> CallFailed:
    """Rebuild a failure from its three texts: a class of this module when the name is one of them."""
    return _KNOWN.get(type_name, CallFailed)(message, type_name, traceback_text)


def same_failure(failure: CallFailed) -> CallFailed:
    """A fresh exception equal to *failure*: one for each thread that is going to raise it.

    Raising one instance in several threads would chain their tracebacks and keep all their frames alive.
    """
    copy = type(failure)(failure.message, failure.type_name, failure.traceback_text)
    copy.__cause__ = failure.__cause__
    return copy
