# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The pool: a fixed number of threads that run the calls of any number of services.

How it works
1. The broker thread hands every CALL_SERVICE message to serve_message, which enters it into PendingRequests (or answers
   Overloaded) and puts it into one queue. A hit of a deduplicating service may be answered right there.
2. Pool threads take from the queue (task_queue.py: which of them, and when): decode the request, find its invoker
   (activating the service when its caller may), and let the invoker run and answer it. Answers go to the broker
   thread through an Outbox, several at a time.
3. Calls of a serialized service, and of a service not active yet, go into a Lane first: a queue of their own, which
   one pool thread at a time works off. The broker thread picks the lane, so arrival order is kept.
4. Every service's Select is part of one aggregate Select (roster.py). When a source becomes ready, a token enters the
   same queue, and the thread that takes it calls the service's on_message.
5. close(): nothing new is accepted (callers get ShuttingDown), queued calls are answered ShuttingDown, running ones may
   finish until the deadline. When the last thread has left, on_shutdown of each service runs, once. Threads are
   daemons: a method that never returns cannot keep the process alive.
6. The broker's 'shutdown' signal starts the same without waiting; callers over connections are answered at once.
7. After a fork the child's copy of the pool has no threads: calls raise Error, close() does nothing.
Locks: none is held while foreign code runs, and only a DeduplicatingInvoker's while PendingRequests' is taken.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from typing import Any, Callable, Iterable, List, Optional, Type, Union

import mitogen
import mitogen.core

from . import encoding, open_pools
from .activator import Activator
from .deadlines import DeadlineClock
from .departures import Departures
from .errors import CallFailed, Error, InvalidRequest, ShuttingDown, failure_from_exception
from .lane import Lane, Lanes
from .outbox import Outbox
from .pending import Limits, PendingRequests
from .policy import Policy
from .request import RemoteRequest, Request
from .roster import Roster
from .statistics import PoolStatistics
from .workers import Workers

LOG = logging.getLogger(__name__)

_CLOSING = "the service pool is shutting down"


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
        unpickle: whose requests may be pickled (None: everybody's). From others only JSON requests are accepted, so
            that nothing a target sends is unpickled: Python's unpickler lets a few bytes ask for any amount of memory.
        overwrite: replace what handles CALL_SERVICE now: for a child, where mitogen has put a stub there.
    Raises Error when the router already has a pool. Use it as a context manager, or call close().
    """

    #: Names the default activator's class, for subclasses of Pool.
    activator_class: Type[Activator] = Activator
    #: seconds ``close()`` waits for running calls unless told otherwise
    close_deadline = 5.0
    #: most threads there may be besides the fixed ones, for deduplicated executions that would take the last free one
    aside_limit = 16

    def __init__(
        self, router: mitogen.core.Router, services: Iterable[Any] = (), size: int = 4, *,
        limits: Optional[Limits] = None, deadline: Optional[float] = None, activator: Optional[Activator] = None,
        unpickle: Optional[Policy] = None, overwrite: bool = False,
    ) -> None:
        if size < 1:
            raise Error("a pool needs at least one thread")
        self.router = router
        self.pending = PendingRequests(limits or Limits())
        self.pid = os.getpid()
        self._state_lock = threading.Lock()
        self._closing = False
        self._broker_leaving = False
        self._refused = self._dropped = 0
        self._deadline = deadline
        self._unpickle = unpickle
        self._lanes = Lanes()
        self._outbox = Outbox(router)
        name = f"service-pool-{id(self) & 0xFFFF:04x}"
        self._workers = Workers(size, name, self.aside_limit, self._finish)
        put = self._workers.put
        self._roster = Roster(
            activator or self.activator_class(), deadline, lambda f: put(_call, f), self._workers.run_aside,
        )
        self._clock = DeadlineClock(self.pending, f"{name}.deadlines")
        self.pending.watch = self._clock.watch
        self._departures = Departures(router, self._on_departure)
        try:
            router.add_handler(self.serve_message, handle=mitogen.core.CALL_SERVICE, overwrite=overwrite)
        except mitogen.core.Error:
            raise Error("this router already has a service pool (or another handler of CALL_SERVICE)") from None
        try:
            for service in services:
                self.add(service)
        except BaseException:
            router.del_handler(mitogen.core.CALL_SERVICE)
            raise
        self._on_broker_end = open_pools.weak_listener(self)
        for signal in ("shutdown", "exit"):
            mitogen.core.listen(router.broker, signal, self._on_broker_end)
        self._workers.start()
        open_pools.remember(self)

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
        if self._workers.own():
            self._serve_nested(request)
        else:
            self._enqueue(request)

    def adopt(self, name: str, upstream_invoker: Any) -> None:
        """Take a service over from mitogen's own pool."""
        self._roster.adopt(name, upstream_invoker)

    def defer(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run a function in a pool thread, some time soon; what it raises is logged."""
        self._check_process()
        self._workers.put(_call, functools.partial(function, *args, **kwargs))

    def serve_message(self, msg: mitogen.core.Message) -> None:
        """Handle a CALL_SERVICE message. In the broker thread, or (child.py) in one that took it over."""
        if msg.is_dead:
            return  # the router's farewell, or a peer's attempt to look like it
        fast = self._roster.fast_replies.get(msg.data)
        if fast is not None and fast(msg):
            return
        request = RemoteRequest(self.pending, msg, self._outbox)
        try:
            self._accept(request)
        except CallFailed as failure:
            self._refused += isinstance(failure, InvalidRequest)
            request.refuse(failure)
            return
        self._departures.watch(msg.src_id)
        request.service = encoding.service_name_of(msg)
        self._enqueue(request)

    def _accept(self, request: Request) -> None:
        if self._deadline is not None and request.expires is None:
            request.expires = request.arrived + self._deadline
        self.pending.add(request)
        if request.expires is not None:
            self.pending.watch(request)

    def _enqueue(self, request: Request) -> None:
        name = request.service
        invoker = self._roster.known(name)
        if name is None or (invoker is not None and not invoker.serialized):
            self._workers.put(self._serve, request)
        else:
            self._put_in_lane(name, request)

    def _put_in_lane(self, name: str, request: Request) -> None:
        lane = self._lanes.append(name, request)
        if lane is not None:
            self._workers.put(self._run_lane, lane)

    # -- pool threads -----------------------------------------------------------------------------------------------

    def _serve(self, request: Request) -> None:
        """Decode, find the invoker, run. Never raises."""
        invoker = self._invoker_of(request)
        if invoker is None:
            return
        if invoker.serialized:
            # the message did not begin as mitogen's do, so nothing was known of its service before now
            self._put_in_lane(str(request.service), request)
        else:
            invoker.handle(request)

    def _invoker_of(self, request: Request) -> Any:
        """The invoker for *request*, now decoded. None when there is nothing to run: it was answered, or is by now."""
        if not request.open:
            return None
        try:
            expected = request.service
            self._check_format(request.message)
            request.decode()
            if request.service is None or (expected is not None and request.service != expected):
                raise InvalidRequest("not a service call: it names two services")
            return self._roster.find(self, request.service, request.message)
        except BaseException as exc:  # activation runs the service's constructor
            if not isinstance(exc, CallFailed):
                LOG.exception("%r: while activating %.200r", self, request.service)
            self._refused += 1
            request.fail(failure_from_exception(exc))
            return None

    def _check_format(self, msg: Optional[mitogen.core.Message]) -> None:
        if msg is None or self._unpickle is None or msg.enc == mitogen.core.Message.ENC_BIN:
            return
        if not self._unpickle.is_authorized(self, msg):
            raise InvalidRequest("pickled requests are not accepted from this caller, only JSON")

    def _run_lane(self, lane: Lane) -> None:
        self._lanes.run(lane, self._serve_in_lane)

    def _serve_in_lane(self, request: Request) -> None:
        invoker = self._invoker_of(request)
        if invoker is None:
            return
        if invoker.serialized:
            invoker.handle(request)
        else:
            # the lane was only needed until the service was active: its calls need not wait for each other
            self._workers.put(self._handle, request)

    def _handle(self, request: Request) -> None:
        if request.open:
            self._roster.known(request.service).handle(request)

    def _serve_nested(self, request: Request) -> None:
        """Serve a call made by one of our own threads, in that thread."""
        invoker = self._invoker_of(request)
        if invoker is None:
            return
        if not invoker.serialized:
            invoker.handle(request)
        elif self._lanes.run_by_this_thread(str(request.service)):
            request.fail(InvalidRequest(f"{request.service} is serialized: a call from its own method cannot wait"))
        else:
            lane = self._lanes.append(str(request.service), request)
            if lane is not None:
                self._run_lane(lane)

    # -- endings ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of threads."""
        return self._workers.size

    @property
    def closed(self) -> bool:
        """Whether the pool accepts nothing any more."""
        return self._closing

    def close(self, deadline: Optional[float] = None) -> bool:
        """Shut down; see the module's text. From any thread; again is harmless.

        Waits at most *deadline* seconds (default close_deadline) for running calls, then answers them ShuttingDown.
        Returns whether all threads have left by then; those that have not leave when their method returns.
        """
        if os.getpid() != self.pid:
            return False
        until = time.monotonic() + (self.close_deadline if deadline is None else deadline)
        self._begin_close()
        in_broker = threading.current_thread() is self.router.broker._thread
        if not self._workers.join(0.0 if in_broker else until):
            _fail_all(self.pending.all())
        self._clock.join(max(0.0, until - time.monotonic()))
        return self._workers.join(0.0)

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
        self.pending.close(_CLOSING)
        self._clock.stop()
        waiting = self._lanes.take_all()
        waiting += [argument for argument in self._workers.stop() if isinstance(argument, Request)]
        _fail_all(waiting)

    def _finish(self) -> None:
        """Everything that is to happen after the last thread has left its work. Called once, by Workers."""
        _fail_all(self.pending.all())
        handler = self.router._handle_map.get(mitogen.core.CALL_SERVICE)
        if handler is not None and handler[1] == self.serve_message:
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
        if os.getpid() == self.pid:
            self._broker_leaving = True
            self._begin_close()
            _fail_all([request for request in self.pending.all() if request.message is not None])

    def _on_departure(self, context_id: int) -> None:
        """The connection of a caller has ended. In the broker thread."""
        gone = self.pending.of_context(context_id)
        self._dropped += len(gone)
        for request in gone:
            if request.invoker is not None:
                request.invoker.abandon(request)
        self._roster.forget_context(context_id)

    def _check_process(self) -> None:
        if os.getpid() != self.pid:
            raise Error(f"the service pool belongs to process {self.pid}; this is a forked child of it")

    # -- information ------------------------------------------------------------------------------------------------

    def statistics(self) -> PoolStatistics:
        """A frozen picture of the pool and its services."""
        refused = self._refused + sum(invoker.refused for invoker in self._roster.invokers())
        return PoolStatistics(
            self._workers.size, self._workers.busy, self._workers.aside, len(self.pending), self.pending.bytes,
            self.pending.overloaded, refused, self._dropped, self._roster.statistics(),
        )

    def __repr__(self) -> str:
        return f"Pool({id(self) & 0xFFFF:04x}, size={self._workers.size}, closed={self._closing})"


def _fail_all(requests: List[Request]) -> None:
    for request in requests:
        request.fail(ShuttingDown(_CLOSING))


def _call(function: Callable[[], Any]) -> None:
    function()
