# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""DeduplicatingInvoker: one execution per distinct call, its value cached and given to everybody who asks.

1. A call's key is (method, kwargs), or what key_from_request() makes of them.
2. The first request of a key runs the method in its pool thread: a *flight*. Requests of the same key that arrive
   meanwhile are entered into the flight and their thread goes back to the pool at once.
   A flight never takes the pool's last free thread: it gets one of its own then (Workers.run_aside), so that other
   services answer however slow a key is.
3. The value goes to everybody in the flight and into the cache. An exception goes to everybody in the flight and is
   forgotten: the next request runs the method again.
4. A request of which the caller has gone (connection lost, deadline passed) is taken out of its flight; the flight
   goes on, for the others and for the cache.
5. A hit is answered by a pool thread. When the very same bytes were seen before and the method's policies only look
   at memory, the broker thread answers it without a thread, from the table the pool gives us (fast_replies).
Policies are checked for every caller, also on hits. The lock guards cache and flights; nothing is called under it
but the cache. Order: the invoker's lock before the one of PendingRequests.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Hashable, Optional

import mitogen.core

from .declare import ExposedMethod
from .encoding import Encoded, encode_failure, encode_value
from .errors import CallFailed, Error, InvalidRequest, failure_from_exception
from .invoker import Invoker
from .request import RemoteRequest
from .response_cache import CachedResponse, ResponseCache
from .statistics import CacheStatistics, ServiceStatistics

if TYPE_CHECKING:
    from .outbox import Outbox
    from .request import Request
    from .service import Service

#: Longer requests are not remembered by their bytes: comparing and keeping them would cost more than decoding.
_ALIAS_BYTES = 4096


class Flight:
    """An execution in progress and the requests that will share its outcome."""

    __slots__ = ("requests", "cacheable", "thread")

    requests: "Dict[Request, None]"

    def __init__(self, first: "Request") -> None:
        self.requests = {first: None}
        #: False after an invalidation: the value may be of before it
        self.cacheable = True
        #: identity of the thread that runs the method
        self.thread: Optional[int] = None


class DeduplicatingInvoker(Invoker):
    """Runs each distinct call once, caches its value, and gives it to everybody who asks. See the module's text.

    Its limits are class attributes, or arguments (see Service.create_invoker).

    Args:
        max_entries: number of values kept.
        max_bytes: bytes of values, encoded replies and keys kept; a larger value is delivered but not kept.
        max_age: seconds a value is kept, None for as long as there is room.
    Values are shared between local callers: treat them as read-only. Methods cannot take ``msg``, because their
    value does not belong to one caller; mark those that need it, or change something, ``@not_deduplicated()``.
    """

    max_entries: int = 1024
    max_bytes: int = 64 * 1024 * 1024
    max_age: Optional[float] = None

    def __init__(
        self, service: "Service", max_entries: Optional[int] = None, max_bytes: Optional[int] = None,
        max_age: Optional[float] = None,
    ) -> None:
        super().__init__(service)
        #: request bytes -> answer(message); replaced by the pool's own table, which the broker thread looks into
        self.fast_replies: Dict[bytes, Callable[[mitogen.core.Message], bool]] = {}
        self._limits = (
            self.max_entries if max_entries is None else max_entries,
            self.max_bytes if max_bytes is None else max_bytes,
            self.max_age if max_age is None else max_age,
        )
        self._run_aside: Callable[[Callable[[], None]], bool] = _no_thread
        self._lock = threading.Lock()
        self._cache = ResponseCache(*self._limits, forgotten=self.fast_replies)
        self._flights: Dict[Hashable, Flight] = {}
        self._hits = 0

    def join_pool(
        self, table: Dict[bytes, Callable[[mitogen.core.Message], bool]],
        run_aside: Callable[[Callable[[], None]], bool],
    ) -> None:
        """Called by the pool, before the first call. *run_aside* gives a function a thread, or returns False."""
        self.fast_replies = table
        self._run_aside = run_aside
        self._cache = ResponseCache(*self._limits, forgotten=table)

    def leave_pool(self) -> None:
        """Called by the pool when it is closed: nothing of the pool may be kept."""
        self._run_aside = _no_thread
        self.invalidate_all()

    def key_from_request(self, method_name: str, kwargs: Dict[str, Any]) -> Hashable:
        """The key under which requests are aggregated; override it to ignore arguments that do not matter.

        The default tells values of different types apart (1, 1.0 and True are three keys). Raises InvalidRequest
        for arguments without a natural key.
        """
        return (method_name, _frozen(kwargs))

    def invalidate(self, method_name: str, **kwargs: Any) -> bool:
        """Forget the value of one call, also of one that is being computed. Whether there was any."""
        return self.invalidate_key(self.key_from_request(method_name, kwargs))

    def invalidate_key(self, key: Hashable) -> bool:
        """Like invalidate(), given the key."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                flight.cacheable = False
            return self._cache.drop(key) or flight is not None

    def invalidate_all(self) -> None:
        """Forget every value."""
        with self._lock:
            for flight in self._flights.values():
                flight.cacheable = False
            for key in self._cache.keys():
                self._cache.drop(key)

    def check_method(self, method: ExposedMethod) -> None:
        if method.deduplicated and method.takes_message:
            raise Error(
                f"{method.name}() of {self.service.name()} takes msg, but its value is shared by many callers; "
                "mark it @not_deduplicated()"
            )

    def execute(self, method: ExposedMethod, request: "Request") -> None:
        if not method.deduplicated:
            super().execute(method, request)
            return
        try:
            key = self.key_from_request(method.name, request.kwargs)
            with self._lock:
                entry = self._cache.get(key)
                flight = None if entry is not None else self._join(key, request)
                self._hits += entry is not None
        except BaseException as exc:  # key_from_request may be the author's; an argument may not be hashable
            self.refused += 1
            request.fail(failure_from_exception(exc))
            return
        if entry is not None:
            method.counters.shared()
            self._answer_from(entry, method, request)
        elif flight is not None:
            self._take_off(functools.partial(self._fly, key, flight, method, request))
        else:
            method.counters.shared()
            if not request.open:  # answered or dropped before it could be found in the flight
                self.abandon(request)

    def delivered(self, method_name: str, kwargs: Dict[str, Any], context_id: int) -> None:
        """Called each time a value goes to a caller over a connection, hits included; override it to keep account.

        Runs in a pool thread or in the broker thread: it must not block.
        """

    def abandon(self, request: "Request") -> None:
        with self._lock:
            for flight in self._flights.values():
                flight.requests.pop(request, None)

    def statistics(self) -> ServiceStatistics:
        methods = super().statistics().methods
        with self._lock:
            waiters = sum(max(0, len(flight.requests) - 1) for flight in self._flights.values())
            return ServiceStatistics(methods, CacheStatistics(
                len(self._cache), self._cache.bytes, self._hits, self._cache.evicted, len(self._flights), waiters,
            ))

    def _join(self, key: Hashable, request: "Request") -> Optional[Flight]:
        """Enter *request* into the flight of *key*; return the flight when it is a new one, to be flown by us."""
        flight = self._flights.get(key)
        if flight is not None:
            if flight.thread == threading.get_ident():  # only a call from within the method gets here
                raise InvalidRequest("the call waits for itself: its method makes the same call again")
            flight.requests[request] = None
            return None
        flight = self._flights[key] = Flight(request)
        return flight

    def _take_off(self, fly: Callable[[], None]) -> None:
        if not self._run_aside(fly):
            fly()

    def _fly(self, key: Hashable, flight: Flight, method: ExposedMethod, request: "Request") -> None:
        flight.thread = threading.get_ident()
        failure: Optional[CallFailed] = None
        entry: Optional[CachedResponse] = None
        try:
            value = self.run(method, request)
            if value is self.service.NO_REPLY:
                raise Error(f"{method.name}() of {self.service.name()} returned NO_REPLY, but others wait for it")
            max_age = self._cache.max_age
            entry = CachedResponse(key, value, None if max_age is None else time.monotonic() + max_age)
        except BaseException as exc:  # everybody in the flight needs an answer, whatever it was
            failure = failure_from_exception(exc)
        with self._lock:
            del self._flights[key]
            if entry is not None and flight.cacheable:
                self._cache.put(entry)
            requests = list(flight.requests)
        if entry is not None:
            for waiter in requests:
                self._answer_from(entry, method, waiter)
        elif failure is not None:
            for waiter in requests:
                waiter.fail(failure)

    def _answer_from(self, entry: CachedResponse, method: ExposedMethod, request: "Request") -> None:
        if not isinstance(request, RemoteRequest):
            request.answer(entry.value)
            return
        encoded = self._encoded(entry)
        self.delivered(method.name, request.kwargs, request.context_id)
        request.answer(entry.value, encoded)
        data = request.message.data
        outbox = request.outbox
        if method.immediate and len(data) <= _ALIAS_BYTES and len(encoded.data) <= outbox.router.max_message_size:
            answer = self._fast_answer(entry, method, request.kwargs, outbox)
            with self._lock:
                if self._cache.add_alias(entry, data):
                    self.fast_replies[data] = answer

    def _encoded(self, entry: CachedResponse) -> Encoded:
        if entry.encoded is not None:
            return entry.encoded
        try:
            encoded = encode_value(entry.value)
        except Exception as exc:  # local callers can have the value all the same
            return encode_failure(failure_from_exception(exc))
        with self._lock:
            self._cache.set_encoded(entry, encoded)
        return encoded

    def _fast_answer(
        self, entry: CachedResponse, method: ExposedMethod, kwargs: Dict[str, Any], outbox: "Outbox"
    ) -> Callable[[mitogen.core.Message], bool]:
        """A function for the broker thread: answers a message of the same bytes, or returns False."""

        def answer(message: mitogen.core.Message) -> bool:
            try:
                method.check_caller(self.service, message, kwargs)
            except Exception:
                return False  # the ordinary way finds the same and tells the caller
            with self._lock:
                if self._cache.get(entry.key) is not entry or entry.encoded is None:
                    return False
                self._hits += 1
            method.counters.shared()
            self.delivered(method.name, kwargs, message.src_id)
            outbox.send_from_broker(message, entry.encoded)
            return True

        return answer


def _no_thread(function: Callable[[], None]) -> bool:
    return False


def _frozen(value: Any) -> Hashable:
    """*value* as something hashable that is equal only for equal values of equal types."""
    kind = type(value)
    if kind in (str, bytes, int, float, bool, type(None)):
        return (kind.__name__, value)
    if isinstance(value, dict):
        return ("dict", frozenset((_frozen(key), _frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return (kind.__name__, tuple(_frozen(item) for item in value))
    if isinstance(value, (set, frozenset)):
        return ("set", frozenset(_frozen(item) for item in value))
    if isinstance(value, mitogen.core.Context):
        return ("context", value.context_id)
    if isinstance(value, mitogen.core.Sender):
        return ("sender", value.context.context_id, value.dst_handle)
    if isinstance(value, (str, bytes)):
        return (kind.__name__, value)
    raise InvalidRequest(f"an argument of type {kind.__name__} has no key: override key_from_request()")
