# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Making calls: call() and call_async() to a service of another process, or of the own process's pool.

Used from any thread. A PendingCall is completed by the broker thread (remote) or by a pool thread (local); the reply
is decoded in the thread that asks for the result.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, Callable, List, Optional, Type, Union

import mitogen
import mitogen.core

from . import encoding, open_pools
from .errors import CallFailed, ConnectionLost, DeadlineExceeded, Error, same_failure
from .pool import Pool
from .request import LocalRequest
from .service import Service

Target = Union[mitogen.core.Context, Pool, None]
ServiceName = Union[str, Type[Service]]

#: Contexts that were asked to start a pool of ours before their first call.
_prepared: "weakref.WeakSet[mitogen.core.Context]" = weakref.WeakSet()


class PendingCall:
    """The answer to a call, some day. Thread-safe; any number of threads may ask for the result."""

    def __init__(self, description: str, deadline: Optional[float] = None) -> None:
        self._description = description
        self._deadline = deadline
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._callbacks: "List[Callable[[PendingCall], None]]" = []
        self._value: Any = None
        self._failure: Optional[CallFailed] = None
        self._reply: Optional[mitogen.core.Message] = None
        self._forget: Optional[Callable[[], None]] = None

    def done(self) -> bool:
        """Whether result() would return or raise at once."""
        return self._event.is_set()

    def result(self, timeout: Optional[float] = None) -> Any:
        """Wait for the value, at most *timeout* seconds (None: the call's deadline, if it has one, or for ever).

        Raises CallFailed or a subclass; DeadlineExceeded when the time is over, after which a late answer is dropped.
        """
        limit = timeout if timeout is not None else self._deadline
        if not self._event.wait(limit):
            failure = DeadlineExceeded(f"{self._description}: no answer within {limit:.3g} seconds")
            self.set_failure(failure)
            if self._forget is not None:
                self._forget()
        self._decode()
        if self._failure is not None:
            raise same_failure(self._failure)
        return self._value

    def add_done_callback(self, callback: "Callable[[PendingCall], None]") -> None:
        """Have ``callback(self)`` called when the answer is there; now, if it is. It runs in the broker thread or a
        pool thread, and must not block."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def set_value(self, value: Any) -> None:
        """Complete with a value (local calls)."""
        self._complete(value=value)

    def set_failure(self, failure: CallFailed) -> None:
        """Complete with an error."""
        self._complete(failure=failure)

    def set_reply(self, message: mitogen.core.Message) -> None:
        """Complete with a reply not decoded yet (remote calls)."""
        self._complete(reply=message)

    def _complete(
        self, value: Any = None, failure: Optional[CallFailed] = None, reply: Optional[mitogen.core.Message] = None
    ) -> None:
        with self._lock:
            if self._event.is_set():
                return
            self._value, self._failure, self._reply = value, failure, reply
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def _decode(self) -> None:
        with self._lock:
            reply, self._reply = self._reply, None
            if reply is None:
                return
            try:
                self._value = encoding.decode_reply(reply)
            except CallFailed as failure:
                self._failure = failure

    def __repr__(self) -> str:
        return f"PendingCall({self._description}, done={self.done()})"


def call_async(
    target: Target, service: ServiceName, method: str, /, *, deadline: Optional[float] = None, **kwargs: Any
) -> PendingCall:
    """Start a call and return at once.

    Args:
        target: the context that has the service; a Pool of the own process; None for the own process's pool.
        service: its name, or its class.
        method: an exposed method's name.
        deadline: seconds until caller and pool both give up, None: no limit of the caller's.
        kwargs: the method's arguments. Over a connection: text, bytes, numbers, None, bool, lists, tuples, dicts,
            and mitogen's Blob, Secret, Context, Sender.
    A parent's first call to a child makes the child start a pool of this package. Raises Error when there is no pool,
    and what pickling raises for arguments that cannot be sent; everything else is raised by the call's result().
    """
    name = service if isinstance(service, str) else service.name()
    if target is None:
        target = open_pools.current()
        if target is None:
            raise Error("this process has no service pool")
    if isinstance(target, mitogen.core.Context) and target.context_id == mitogen.context_id:
        target = open_pools.of_router(target.router) or target
    pending = PendingCall(f"{name}.{method}()", deadline)
    if isinstance(target, Pool):
        request = LocalRequest(target.pending, mitogen.context_id, name, method, kwargs, pending)
        if deadline is not None:
            request.called_with = request.expires = request.arrived + deadline
        target.submit(request)
    else:
        _send(target, pending, encoding.encode_request(name, method, kwargs, deadline))
    return pending


def call(
    target: Target, service: ServiceName, method: str, /, *, deadline: Optional[float] = None, **kwargs: Any
) -> Any:
    """Call a method and wait for its value. Arguments and errors as for call_async() and PendingCall.result()."""
    return call_async(target, service, method, deadline=deadline, **kwargs).result()


def _send(context: mitogen.core.Context, pending: PendingCall, request: encoding.Encoded) -> None:
    router = context.router
    handle = router.add_handler(pending.set_reply, persist=False, respondent=context)

    def forget() -> None:
        try:
            router.del_handler(handle)
        except KeyError:
            pass  # the answer came just now

    pending._forget = forget
    message = mitogen.core.Message(
        enc=request.enc, data=request.data, handle=mitogen.core.CALL_SERVICE, dst_id=context.context_id,
        reply_to=handle,
    )
    try:
        _prepare(context)
        router.route(message)
    except (mitogen.core.Error, OSError, AttributeError) as exc:
        forget()
        pending.set_failure(ConnectionLost(f"the message cannot be sent: {exc}"))


def _prepare(context: mitogen.core.Context) -> None:
    """Ask a child to start our pool. The request travels ahead of the call on the same stream, so it is first."""
    if context in _prepared:
        return
    _prepared.add(context)
    is_parent = context.context_id in mitogen.parent_ids or context.context_id == mitogen.context_id
    if not is_parent and hasattr(context, "call_no_reply"):
        from . import child

        context.call_no_reply(child.start_pool)
