# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How the calls of one service are run: Invoker (all at once) and SerializedInvoker (one after another).

An invoker is made by the pool when it takes a service. ``handle()`` runs in pool threads, one call per thread.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Optional

import mitogen.core

from .declare import ExposedMethod, exposed_method
from .errors import CallFailed, DeadlineExceeded, InvalidRequest, failure_from_exception
from .statistics import ServiceStatistics

if TYPE_CHECKING:
    from .request import Request
    from .service import Service

LOG = logging.getLogger(__name__)


class Invoker:
    """Runs calls concurrently: each in the pool thread that took it."""

    #: The pool keeps the calls in arrival order and runs them on one thread at a time.
    serialized = False

    def __init__(self, service: "Service") -> None:
        self.service = service
        #: requests answered with an error before a method ran
        self.refused = 0
        #: seconds; the pool's default, set when the pool takes the service
        self.default_deadline: Optional[float] = None
        self._methods: Dict[str, ExposedMethod] = {}
        self._methods_lock = threading.Lock()

    def method(self, name: str) -> ExposedMethod:
        """The exposed method *name*. Raises InvalidRequest for any other name."""
        method = self._methods.get(name)
        if method is None:
            with self._methods_lock:
                method = self._methods.get(name) or exposed_method(self.service, name)
                if method is None:
                    raise InvalidRequest(f"{self.service.name()} has no exposed method {name[:100]!r}")
                self.check_method(method)
                self._methods[name] = method
        return method

    def check_method(self, method: ExposedMethod) -> None:
        """Raise Error for a method this invoker cannot run. Called once per method."""

    def handle(self, request: "Request") -> None:
        """Check *request*, run it and answer it. Never raises."""
        try:
            method = self.method(request.method)
            method.check_arguments(request.kwargs)
            if request.message is not None:
                method.check_caller(self.service, request.message, request.kwargs)
            self._check_deadline(method, request)
        except BaseException as exc:  # policies are the service author's code
            self.refused += 1
            if not isinstance(exc, CallFailed):
                LOG.exception("%r: while checking a call of %s()", self, request.method[:100])
            request.fail(failure_from_exception(exc))
            return
        request.invoker = self
        self.execute(method, request)

    def execute(self, method: ExposedMethod, request: "Request") -> None:
        """Run a request that was found to be in order, and answer it. Never raises."""
        try:
            value = self.run(method, request)
        except BaseException as exc:  # also SystemExit: it must end the call, not the pool's thread
            if method.no_reply:
                LOG.exception("%r: %s(), which sends no reply, failed", self, method.name)
                request.close()
            else:
                request.fail(failure_from_exception(exc))
            return
        if method.no_reply or value is self.service.NO_REPLY:
            request.close()
        else:
            request.answer(value)

    def run(self, method: ExposedMethod, request: "Request") -> Any:
        """Call the method, counting it. Raises what it raises."""
        began = time.monotonic()
        method.counters.began(began - request.arrived)
        failed = True
        try:
            if method.takes_message:
                value = method.function(msg=request.message, **request.kwargs)
            else:
                value = method.function(**request.kwargs)
            failed = False
            return value
        finally:
            method.counters.ended(time.monotonic() - began, failed)

    def abandon(self, request: "Request") -> None:
        """The caller of *request* is gone. Called by the broker thread; must not block."""

    def invoke(self, method_name: str, kwargs: Dict[str, Any], msg: mitogen.core.Message) -> None:
        """Entry for ``mitogen.service.Pool``, which a child starts by itself when a plain CALL_SERVICE arrives.

        Moves the service to a pool of this package (child.py), which answers the message.
        """
        from .child import take_over_call

        take_over_call(self.service, msg)

    def statistics(self) -> ServiceStatistics:
        """Figures of every method called so far."""
        methods = {name: method.counters.statistics() for name, method in list(self._methods.items())}
        return ServiceStatistics(methods)

    def _check_deadline(self, method: ExposedMethod, request: "Request") -> None:
        limit = method.deadline if method.deadline is not None else self.default_deadline
        if limit is not None:
            expires = request.arrived + limit
            request.expires = expires if request.called_with is None else min(expires, request.called_with)
        else:
            request.expires = request.called_with
        if request.expires is not None:
            if time.monotonic() >= request.expires:
                raise DeadlineExceeded(f"{method.name}() was not started within the call's deadline")
            request.table.watch(request)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.service!r})"


class SerializedInvoker(Invoker):
    """Runs all calls of the service on one thread, borrowed from the pool while any is pending, in arrival order.

    A method of the service may use the service's state without locks. A call it makes to its own service on the
    same pool would wait for itself, and is refused.
    """

    serialized = True
