# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The pool: a fixed number of threads that run the calls of any number of services.

How it works
1. The broker thread hands every CALL_SERVICE message to _on_message, which enters it into PendingRequests (or answers
   Overloaded) and puts it into one queue. A hit of a deduplicating service may be answered right there.
2. Pool threads take from the queue: decode the request, find its invoker (activating the service when its caller
   may), and let the invoker run and answer it.
3. Calls of a serialized service, and of a service not active yet, go into a Lane first: a queue of their own, which
   one pool thread at a time works off. The broker thread picks the lane, so arrival order is kept.
4. Every service's Select is part of one aggregate Select (roster.py). When a source becomes ready, a token enters the
   same queue, and the thread that takes it calls the service's on_message.
5. close(): nothing new is accepted (callers get ShuttingDown), queued calls are answered ShuttingDown, running ones may
   finish until the deadline. When the last thread has left, on_shutdown of each service runs, once. Threads are
   daemons: a method that never returns cannot keep the process alive.
6. The broker's 'shutdown' signal starts the same without waiting; callers over connections are answered at once.
7. After a fork the child's copy of the pool has no threads: calls raise Error, close() does nothing.
Locks: _state_lock (closing, threads, lanes) first; then those of Lane, PendingRequests, Roster. Never held while
foreign code runs.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple, Type, Union

import mitogen
import mitogen.core

from . import encoding
from .activator import Activator
from .deadlines import DeadlineClock
from .departures import Departures
from .errors import CallFailed, Error, InvalidRequest, ShuttingDown, failure_from_exception
from .lane import Lane
from .pending import Limits, PendingRequests
from .request import RemoteRequest, Request
from .roster import Roster
from .statistics import PoolStatistics

LOG = logging.getLogger(__name__)

_CLOSING = "the service pool is shutting down"
_pools: "weakref.WeakKeyDictionary[mitogen.core.Router, weakref.ref[Pool]]" = weakref.WeakKeyDictionary()
_newest: "Optional[weakref.ref[Pool]]" = None


class Pool:
    """Threads that serve calls for a router.

    Args:
        router: where CALL_SERVICE messages arrive.
        services: instances to begin with; see add().
        size: number of threads, at least 1.
        limits: what is accepted before callers get Overloaded.
        deadline: seconds from its arrival after which a request is answered DeadlineExceeded; None: never.
            A method's own ``@deadline`` counts instead, once the request has been taken from the queue.
        activator: how services are found by name; an Activator by default.
        overwrite: replace what handles CALL_SERVICE now: for a child, where mitogen has put a stub there.
    Raises Error when the router already has a pool. Use it as a context manager, or call close().
    """

    #: Names the default activator's class, for subclasses of Pool.
    activator_class: Type[Activator] = Activator
    #: seconds ``close()`` waits for running calls unless told otherwise
    close_deadline = 5.0

    def __init__(
        self, router: mitogen.core.Router, services: Iterable[Any] = (), size: int = 4, *,
        limits: Optional[Limits] = None, deadline: Optional[float] = None, activator: Optional[Activator] = None,
        overwrite: bool = False,
    ) -> None:
        if size < 1:
            raise Error("a pool needs at least one thread")
        global _newest
        self.router = router
        self.pending = PendingRequests(limits or Limits())
        self._pid = os.getpid()
        self._state_lock = threading.Lock()
        self._closing = False
        self._finished = threading.Event()
        self._broker_leaving = False
        self._refused = self._dropped = 0
        self._deadline = deadline
        self._queue: "queue.SimpleQueue[Optional[Tuple[Callable[..., None], Any]]]" = queue.SimpleQueue()
        self._lanes: Dict[str, Lane] = {}
        self._busy: Set[int] = set()
        put, event_token = self._queue.put, (Pool._deliver_event, None)
        self._roster = Roster(activator or self.activator_class(), deadline, lambda: put(event_token))
        self._clock = DeadlineClock(self.pending, f"service-deadlines-{id(self) & 0xFFFF:04x}")
        self._departures = Departures(router, self._on_departure)
        try:
            router.add_handler(self._on_message, handle=mitogen.core.CALL_SERVICE, overwrite=overwrite)
        except mitogen.core.Error:
            raise Error("this router already has a service pool (or another handler of CALL_SERVICE)") from None
        for service in services:
            self.add(service)
        self._on_broker_end = _weak_listener(self)
        for signal in ("shutdown", "exit"):
            mitogen.core.listen(router.broker, signal, self._on_broker_end)
        self._threads = [
            threading.Thread(target=self._work, name=f"service-pool-{id(self) & 0xFFFF:04x}.{number}", daemon=True)
            for number in range(size)
        ]
        self._running = size
        self._closers = 0
        for thread in self._threads:
            thread.start()
        _pools[router] = _newest = weakref.ref(self)

    # -- services ---------------------------------------------------------------------------------------------------

    def add(self, service: Any, name: Optional[str] = None) -> None:
        """Take a service, under its own name or *name*. Raises Error when the name is taken or the pool is closed."""
        if self._closing:
            raise Error("the pool is closed")
        self._roster.add(service, name or service.name())

    def get_service(self, service: Union[str, Type[Any]]) -> Any:
        """The instance serving a name or class; it is activated when it is not active.

        Raises InvalidRequest when there is no such service.
        """
        return self.get_invoker(service).service

    def get_invoker(self, service: Union[str, Type[Any]], msg: Optional[mitogen.core.Message] = None) -> Any:
        """The invoker of a name or class, activating the service for the sender of *msg* (None: this process)."""
        name = service if isinstance(service, str) else service.name()
        return self._roster.find(self, name, msg)

    # -- intake -----------------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Accept a request of this process, or answer it at once with the reason why not. From any thread.

        From one of the pool's own threads the call runs in that thread: a method that calls another service of its
        pool needs no second thread. Raises Error in a forked child.
        """
        self._check_process()
        try:
            self._accept(request)
        except CallFailed as failure:
            request.refuse(failure)
            return
        lane = self._lane_of(request)
        if threading.get_ident() not in self._busy:
            self._enqueue(request, lane)
        elif lane is None:
            self._serve(request)
        elif lane.thread == threading.get_ident():
            request.fail(InvalidRequest(f"{lane.name} is serialized: a call from its own method would wait for itself"))
        elif lane.append(request):
            self._run_lane(lane)

    def serve_message(self, msg: mitogen.core.Message) -> None:
        """Serve a CALL_SERVICE message that another handler had received. From any thread."""
        self._on_message(msg)

    def adopt(self, name: str, upstream_invoker: Any) -> None:
        """Take a service over from mitogen's own pool."""
        self._roster.adopt(name, upstream_invoker)

    def defer(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run a function in a pool thread, some time soon; what it raises is logged."""
        self._check_process()
        self._queue.put((Pool._run_deferred, lambda: function(*args, **kwargs)))

    def _on_message(self, msg: mitogen.core.Message) -> None:
        """A message for CALL_SERVICE. In the broker thread."""
        if msg.is_dead:
            return  # the router's farewell, or a peer's attempt to look like it
        fast = self._roster.fast_replies.get(msg.data)
        if fast is not None and fast(msg):
            return
        request = RemoteRequest(self.pending, msg, self.router)
        try:
            self._accept(request)
        except CallFailed as failure:
            self._refused += isinstance(failure, InvalidRequest)
            request.refuse(failure)
            return
        self._departures.watch(msg.src_id)
        request.service = encoding.service_name_of(msg)
        self._enqueue(request, self._lane_of(request))

    def _accept(self, request: Request) -> None:
        if self._deadline is not None and request.expires is None:
            request.expires = request.arrived + self._deadline
        self.pending.add(request)
        if request.expires is not None:
            self._clock.watch(request)

    def _lane_of(self, request: Request) -> Optional[Lane]:
        """The lane *request* has to take; None for a service whose calls run at once."""
        name = request.service
        if name is None:
            return None
        invoker = self._roster.known(name)
        if invoker is not None and not invoker.serialized:
            return None
        with self._state_lock:
            return self._lanes.setdefault(name, Lane(name))

    def _enqueue(self, request: Request, lane: Optional[Lane]) -> None:
        if lane is None:
            self._queue.put((Pool._serve, request))
        elif lane.append(request):
            self._queue.put((Pool._run_lane, lane))

    # -- pool threads -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Main function of a pool thread."""
        me, take, busy = threading.get_ident(), self._queue.get, self._busy
        while True:
            task = take()
            if task is None:
                break
            busy.add(me)
            try:
                task[0](self, task[1])
            except Exception:
                LOG.exception("%r: a task failed", self)
            busy.discard(me)
            del task  # nothing of the last call may live on while we wait
        self._leave()

    def _serve(self, request: Request) -> None:
        """Decode, find the invoker, run. Never raises."""
        request.started = True
        if not request.open:
            return  # dropped or answered while it was queued
        try:
            expected = request.service
            request.decode()
            if expected is not None and request.service != expected:
                raise InvalidRequest("not a service call: it names two services")
            assert request.service is not None
            invoker = self._roster.find(self, request.service, request.message)
        except BaseException as exc:  # activation runs the service's constructor
            if not isinstance(exc, CallFailed):
                LOG.exception("%r: while activating %.200r", self, request.service)
            self._refused += 1
            request.fail(failure_from_exception(exc))
            return
        if invoker.serialized and expected is None:
            lane = self._lane_of(request)
            if lane is not None and lane.append(request):
                self._run_lane(lane)
            return
        invoker.handle(request)
        if request.expires is not None and request.open:
            self._clock.watch(request)

    def _run_lane(self, lane: Lane) -> None:
        lane.run(self._serve_in_lane)
        invoker = self._roster.known(lane.name)
        if invoker is None or not invoker.serialized:
            # the lane was only needed until the service was active (or found not to exist)
            with self._state_lock:
                if lane.idle:
                    self._lanes.pop(lane.name, None)

    def _serve_in_lane(self, request: Request) -> None:
        invoker = self._roster.known(request.service)
        if invoker is not None and not invoker.serialized:
            self._queue.put((Pool._serve, request))
        else:
            self._serve(request)

    def _deliver_event(self, _nothing: None) -> None:
        self._roster.deliver_event()

    def _run_deferred(self, function: Callable[[], None]) -> None:
        function()

    # -- endings ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of threads."""
        return len(self._threads)

    @property
    def closed(self) -> bool:
        """Whether the pool accepts nothing any more."""
        return self._closing

    def close(self, deadline: Optional[float] = None) -> bool:
        """Shut down; see the module's text. From any thread; again is harmless.

        Waits at most *deadline* seconds (default close_deadline) for running calls, then answers them ShuttingDown.
        Returns whether all threads have left by then; those that have not leave when their method returns.
        """
        if os.getpid() != self._pid:
            return False
        until = time.monotonic() + (self.close_deadline if deadline is None else deadline)
        with self._state_lock:
            self._closers += 1
        self._begin_close()
        me = threading.current_thread()
        for thread in self._threads:
            if thread is not me and me is not self.router.broker._thread:
                thread.join(max(0.0, until - time.monotonic()))
        self._fail_all(self.pending.all())
        with self._state_lock:
            self._closers -= 1
            finish = self._running == 0 and self._closers == 0
        if finish:
            self._finish()
        self._clock.join(max(0.0, until - time.monotonic()))
        return self._running == 0

    def stop(self, join: bool = True) -> None:
        """close(), by the name and the argument mitogen's pool has; without *join* it does not wait."""
        self.close(None if join else 0.0)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _begin_close(self) -> None:
        with self._state_lock:
            if self._closing:
                return
            self._closing = True
            lanes = list(self._lanes.values())
        self.pending.close(_CLOSING)
        self._clock.stop()
        waiting: List[Request] = [request for lane in lanes for request in lane.take_all()]
        while True:
            try:
                task = self._queue.get_nowait()
            except queue.Empty:
                break
            if task is not None and isinstance(task[1], Request):
                waiting.append(task[1])
        self._fail_all(waiting)
        for _ in self._threads:
            self._queue.put(None)

    def _fail_all(self, requests: List[Request]) -> None:
        for request in requests:
            request.fail(ShuttingDown(_CLOSING))

    def _leave(self) -> None:
        """The calling pool thread has finished its work."""
        with self._state_lock:
            self._running -= 1
            finish = self._running == 0 and self._closers == 0
        if finish:
            self._finish()

    def _finish(self) -> None:
        """Everything that is to happen after the last thread has left. Once."""
        with self._state_lock:
            if self._finished.is_set():
                return
            self._finished.set()
        self._fail_all(self.pending.all())
        handler = self.router._handle_map.get(mitogen.core.CALL_SERVICE)
        if handler is not None and handler[1] == self._on_message:
            try:
                self.router.del_handler(mitogen.core.CALL_SERVICE)
            except KeyError:
                pass  # the broker was faster
        if not self._broker_leaving:
            for signal in ("shutdown", "exit"):
                mitogen.core.unlisten(self.router.broker, signal, self._on_broker_end)
        self._departures.stop()
        self._roster.close()

    def broker_ending(self) -> None:
        """The broker shuts down or has exited. In the broker thread: does not wait."""
        if os.getpid() == self._pid:
            self._broker_leaving = True
            self._begin_close()
            self._fail_all([request for request in self.pending.all() if request.message is not None])

    def _on_departure(self, context_id: int) -> None:
        """The connection of a caller has ended. In the broker thread."""
        gone = self.pending.of_context(context_id)
        self._dropped += len(gone)
        for request in gone:
            if request.invoker is not None:
                request.invoker.abandon(request)
        self._roster.forget_context(context_id)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise Error(f"the service pool belongs to process {self._pid}; this is a forked child of it")

    # -- information ------------------------------------------------------------------------------------------------

    def statistics(self) -> PoolStatistics:
        """A frozen picture of the pool and its services."""
        refused = self._refused + sum(invoker.refused for invoker in self._roster.invokers())
        return PoolStatistics(
            len(self._threads), len(self._busy), len(self.pending), self.pending.bytes, self.pending.overloaded,
            refused, self._dropped, self._roster.statistics(),
        )

    @classmethod
    def current(cls) -> "Optional[Pool]":
        """The newest pool of this process that is open, else None. A forked child has none."""
        pool = _newest() if _newest is not None else None
        return pool if pool is not None and not pool.closed and pool._pid == os.getpid() else None

    @classmethod
    def of_router(cls, router: mitogen.core.Router) -> "Optional[Pool]":
        """The open pool of *router* in this process, else None."""
        reference = _pools.get(router)
        pool = reference() if reference is not None else None
        return pool if pool is not None and not pool.closed and pool._pid == os.getpid() else None

    def __repr__(self) -> str:
        return f"Pool({id(self) & 0xFFFF:04x}, size={len(self._threads)}, closed={self._closing})"


def _weak_listener(pool: Pool) -> Callable[[], None]:
    """A signal handler that does not keep *pool* alive."""
    reference = weakref.ref(pool)

    def broker_ending() -> None:
        alive = reference()
        if alive is not None:
            alive.broker_ending()

    return broker_ending
