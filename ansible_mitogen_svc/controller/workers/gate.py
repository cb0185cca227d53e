# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Waits for a moment at which the process can be forked although threads are alive.

Theory of operation

1. Worker threads run their tasks inside `ForkGate.task`. Waits of unknown length in which a thread holds nothing (for a
   target's reply) are inside `ForkGate.blocking`; the transport does that, in whatever thread.
2. The main thread closes the gate before it forks. No task starts, and no thread returns from a blocking wait, until
   it opens again.
3. Threads that are in neither place are somewhere in Python code or in some other wait. They count as *still* when
   three looks, a few milliseconds apart, show each of them at the same instruction, asleep, and not woken in between
   (the kernel counts how often it ran), and nothing on its stack belongs to the import system or is starting a
   program (`services/starting.py` has the reason). Then all wait for something outside, none for the interpreter, and
   they hold no lock that a child needs but those that are taken for the fork. Where there is no /proc, only the
   instructions are compared.
4. A thread that never comes to rest is waited for up to a limit; the fork then happens all the same, and is counted as
   `unsettled` in `statistics()`.
5. While it waits the main thread must go on answering requests of the threads (add_host), or both wait for ever: the
   caller passes what to do meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

#: Number of equal looks that make a thread still, and seconds between two of them.
EQUAL_LOOKS = 3
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
        #: Threads inside a task and not in a blocking wait: identity and the kernel's number for it.
        self._running: dict[int, int] = {}
        self._local = threading.local()
        self._counts = {"closed": 0, "waited": 0, "unsettled": 0}
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._state = threading.Condition()
        self._closed = False
        self._running = {}
        self._local = threading.local()

    def statistics(self) -> GateStatistics:
        """Counts since the process started."""
        return GateStatistics(**self._counts)

    def _enter(self) -> None:
        with self._state:
            while self._closed:
                self._state.wait()
            self._running[threading.get_ident()] = threading.get_native_id()

    def _leave(self) -> None:
        with self._state:
            self._running.pop(threading.get_ident(), None)
            if self._closed:
                self._state.notify_all()

    def is_inside(self) -> bool:
        """Whether the current thread runs a task, and is not in a blocking wait."""
        return bool(getattr(self._local, "inside", False))

    def is_busy(self) -> bool:
        """Whether a thread runs a task, and is not in a blocking wait."""
        return bool(self._running)

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
        before: dict[int, Look] | None = None
        equal = 1
        while time.monotonic() < limit:
            meanwhile()
            with self._state:
                if not self._running:
                    return True
                running = dict(self._running)
            now = _look_at(running)
            equal = equal + 1 if now is not None and now == before else 1
            if equal == EQUAL_LOOKS:
                return True
            before = now
            with self._state:
                if self._running:
                    self._state.wait(LOOK_INTERVAL)
        return False


#: Where ``subprocess.Popen`` waits for its program to be executed.
_STARTS_PROGRAM = subprocess.Popen._execute_child.__code__  # type: ignore[attr-defined]
#: A thread's frame and instruction, and how often the kernel has put it to sleep.
Look = tuple[int, int, bytes]


def _look_at(threads: dict[int, int]) -> dict[int, Look] | None:
    """What each of `threads` does. `None` while one of them runs, imports something or starts a program."""
    found: dict[int, Look] = {}
    for ident, native in threads.items():
        slept = _slept(native)
        frame = sys._current_frames().get(ident)
        if frame is None:
            continue
        if slept is None or _is_busy(frame):
            return None
        found[ident] = (id(frame), frame.f_lasti, slept)
    return found


def _slept(native: int) -> bytes | None:
    """The kernel's counts of a thread's context switches; `None` while it is not asleep."""
    try:
        with open(f"/proc/self/task/{native}/status", "rb") as file:
            status = file.read()
    except OSError:
        return b""
    if b"\nState:\tR" in status:
        return None
    return status[status.find(b"\nvoluntary_ctxt_switches") :]


def _is_busy(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_code is _STARTS_PROGRAM:
            return True
        frame = frame.f_back
    return False


#: The gate of this process. The transport uses its `blocking`.
fork_gate = ForkGate()
