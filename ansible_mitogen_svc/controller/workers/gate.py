# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Waits for a moment at which the process can be forked although threads are alive.

Theory of operation

1. Worker threads run their tasks inside `ForkGate.task`. Waits of unknown length in which a thread holds nothing (for a
   target's reply) are inside `ForkGate.blocking`; the transport does that, in whatever thread.
2. The main thread closes the gate before it forks. No task starts, and no thread returns from a blocking wait, until
   it opens again.
3. Threads that are in neither place are somewhere in Python code or in some other wait. They count as *still* when two
   looks at their stack, a few milliseconds apart, show the same instruction, and nothing on the stack belongs to the
   import system: then they wait for something outside, and hold no lock that a child needs but those that are taken
   for the fork.
4. A thread that never comes to rest is waited for up to a limit; the fork then happens all the same, and is counted as
   `unsettled` in `statistics()`.
5. While it waits the main thread must go on answering requests of the threads (add_host), or both wait for ever: the
   caller passes what to do meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

#: Seconds between two looks at the threads' stacks.
LOOK_INTERVAL = 0.003
#: Seconds after which a fork is made although a thread does not come to rest.
SETTLE_LIMIT = 5.0


@dataclass(frozen=True)
class GateStatistics:
    """`closed`: forks; `waited`: those that found a thread busy; `unsettled`: those made although one stayed so."""

    closed: int
    waited: int
    unsettled: int


class ForkGate:
    """One per process. `closed` is for the main thread; the rest for any thread."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._closed = False
        self._running: set[int] = set()
        self._local = threading.local()
        self._counts = {"closed": 0, "waited": 0, "unsettled": 0}
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._state = threading.Condition()
        self._closed = False
        self._running = set()
        self._local = threading.local()

    def statistics(self) -> GateStatistics:
        """Counts since the process started."""
        return GateStatistics(**self._counts)

    def _enter(self) -> None:
        with self._state:
            while self._closed:
                self._state.wait()
            self._running.add(threading.get_ident())

    def _leave(self) -> None:
        with self._state:
            self._running.discard(threading.get_ident())
            if self._closed:
                self._state.notify_all()

    def is_inside(self) -> bool:
        """Whether the current thread runs a task, and is not in a blocking wait."""
        return bool(getattr(self._local, "inside", False))

    @contextlib.contextmanager
    def task(self) -> Iterator[None]:
        """For the whole of a task in a worker thread."""
        self._enter()
        self._local.inside = True
        try:
            yield
        finally:
            self._local.inside = False
            self._leave()

    @contextlib.contextmanager
    def blocking(self) -> Iterator[None]:
        """Around a wait for something outside, with no lock held. Does nothing in threads that are no task worker."""
        if not self.is_inside():
            yield
            return
        self._local.inside = False
        self._leave()
        try:
            yield
        finally:
            self._enter()
            self._local.inside = True

    @contextlib.contextmanager
    def closed(self, meanwhile: Callable[[], None] = lambda: None) -> Iterator[bool]:
        """Keep every task at rest inside this block. Yields whether all of them had come to rest.

        :param meanwhile: called again and again while it waits, with no lock held.
        """
        with self._state:
            self._closed = True
            self._counts["closed"] += 1
            self._counts["waited"] += bool(self._running)
        try:
            settled = self._settle(meanwhile)
            self._counts["unsettled"] += not settled
            yield settled
        finally:
            with self._state:
                self._closed = False
                self._state.notify_all()

    def _settle(self, meanwhile: Callable[[], None]) -> bool:
        limit = time.monotonic() + SETTLE_LIMIT
        before: dict[int, tuple[int, int]] | None = None
        while time.monotonic() < limit:
            meanwhile()
            with self._state:
                if not self._running:
                    return True
                running = set(self._running)
            now = _positions(running)
            if before is not None and now is not None and now == before:
                return True
            before = now
            with self._state:
                if self._running:
                    self._state.wait(LOOK_INTERVAL)
        return False


def _positions(threads: set[int]) -> dict[int, tuple[int, int]] | None:
    """Where each of `threads` is: its frame and instruction. `None` while one of them imports something."""
    frames = sys._current_frames()
    found: dict[int, tuple[int, int]] = {}
    for ident in threads:
        frame = frames.get(ident)
        if frame is None:
            continue
        if _is_importing(frame):
            return None
        found[ident] = (id(frame), frame.f_lasti)
    return found


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


#: The gate of this process. The transport uses its `blocking`.
fork_gate = ForkGate()
