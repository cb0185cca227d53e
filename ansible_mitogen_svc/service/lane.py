# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A queue whose items are run one after another, in the order they were appended, by one pool thread at a time.

Appended to by the broker thread and by local callers; run by pool threads. The calls of a SerializedInvoker use one,
and so do the first calls of a service that is not active yet (its invoker is not known before it is activated).
"""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING, Callable, Deque, Dict, List, Optional

if TYPE_CHECKING:
    from .request import Request


class Lane:
    """The queue of one service. Its items are guarded by the lock of the Lanes it belongs to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: "Deque[Request]" = collections.deque()
        #: identity of the thread that runs the lane now
        self.thread: Optional[int] = None


class Lanes:
    """The lanes of a pool, each made when a request needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: a lane in here is being run, or a pool thread has been told to
        self._lanes: Dict[str, Lane] = {}

    def append(self, name: str, request: "Request") -> Optional[Lane]:
        """Put *request* into the lane of the service *name*. Returns the lane when the caller must have it run."""
        with self._lock:
            lane = self._lanes.get(name)
            new = lane is None
            if lane is None:
                lane = self._lanes[name] = Lane(name)
            lane.items.append(request)
            return lane if new else None

    def run(self, lane: Lane, serve: "Callable[[Request], None]") -> None:
        """Serve the items of *lane* in the calling thread until there are none. *serve* must not raise."""
        lane.thread = threading.get_ident()
        while True:
            with self._lock:
                if not lane.items:
                    lane.thread = None
                    del self._lanes[lane.name]
                    return
                request = lane.items.popleft()
            serve(request)

    def run_by_this_thread(self, name: str) -> bool:
        """Whether the calling thread is running the lane of the service *name* now."""
        lane = self._lanes.get(name)
        return lane is not None and lane.thread == threading.get_ident()

    def take_all(self) -> "List[Request]":
        """Remove and return what has not been served."""
        with self._lock:
            taken = [request for lane in self._lanes.values() for request in lane.items]
            for lane in self._lanes.values():
                lane.items.clear()
            return taken
