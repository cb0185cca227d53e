# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""When each task ran and what it waited for, for the callback `ansible_mitogen.svc.timeline`; off unless it asks.

Written by the controller in any thread; a forked worker's part travels with its counters (`Counters.take`, `merge`).

Theory of operation
1. The callback switches `recorder` on before the first play. Off, each call here costs one look at a flag.
2. The worker layer notes (main thread) when a task was queued and started, as what kind of worker and why.
3. The executor opens a task's record in the thread that runs it, and closes it. In between, whatever that thread waits
   for is added under its kind: `connect`, `transfer` or `module`. What is not added is the controller's own work.
4. All times are of CLOCK_MONOTONIC, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

#: What a task's thread may wait for.
CONNECT, TRANSFER, MODULE = "connect", "transfer", "module"
#: (kind of worker, reason, queued, started).
Start = tuple[str, str, float, float]


class _Open(threading.local):
    """The record of the task that this thread runs: [kind, begin, end] for each wait."""

    waits: list[list[Any]] | None = None


class SpanRecorder:
    """See the module. `enabled` may be set at any time, in the main thread."""

    def __init__(self) -> None:
        self.enabled = False
        self._open = _Open()
        self._lock = threading.Lock()
        self._runs: list[list[Any]] = []
        self._starts: dict[tuple[str, str], list[Start]] = {}
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._runs = []

    def started(self, host: str, task: str, kind: str, reason: str, queued: float) -> None:
        """A worker of `kind` was started for the task with that uuid, which the strategy queued at `queued`."""
        if self.enabled:
            self._starts.setdefault((host, task), []).append((kind, reason, queued, time.monotonic()))

    def moved(self, host: str, task: str, kind: str, reason: str) -> None:
        """The worker gave the task up before it did anything; it goes to one of another kind."""
        starts = self._starts.get((host, task))
        if starts:
            starts[-1] = (kind, reason, *starts[-1][2:])

    @contextlib.contextmanager
    def running(self, host: str, task: str) -> Iterator[None]:
        """The current thread runs that task inside this block."""
        if not self.enabled:
            yield
            return
        begin = time.monotonic()
        waits: list[list[Any]] = []
        self._open.waits = waits
        try:
            yield
        finally:
            self._open.waits = None
            with self._lock:
                self._runs.append([host, task, begin, time.monotonic(), waits])

    def waited(self, kind: str, since: float) -> None:
        """The current thread has waited for `kind` since `since`."""
        waits = self._open.waits
        if waits is not None:
            waits.append([kind, since, time.monotonic()])

    def take(self) -> list[list[Any]]:
        """Finished runs as plain types, [host, task, begin, end, waits]; they are forgotten here."""
        with self._lock:
            runs, self._runs = self._runs, []
        return runs

    def merge(self, runs: list[list[Any]]) -> None:
        """Add what another process's `take` gave."""
        with self._lock:
            self._runs.extend(runs)

    def starts(self) -> dict[tuple[str, str], list[Start]]:
        """{(host, task): its starts in order} of this process; a handler may be started again with each flush."""
        return {key: list(starts) for key, starts in self._starts.items()}


#: The recorder of this process.
recorder = SpanRecorder()
