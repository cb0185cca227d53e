# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The queue between those who have work for a pool (broker thread, local callers) and the pool's fixed threads.

Why not queue.SimpleQueue or mitogen's Latch: who is woken, and how many, decides what a short call costs.
1. The thread that has slept longest is woken first. The one that went to sleep last lies on the processor on which it
   woke the broker thread with its answer, and would now wait there for that thread, with another processor idle: with
   one call at a time from one child, 0.84 of the calls per second of mitogen's pool instead of 1.09.
2. At most one thread is on its way out of sleep at any time. When it takes a task and there are more, it wakes the next
   one before it begins. Several threads woken at once would only queue for the interpreter's lock, and so would the
   broker thread that has the next messages to read; a task that blocks still holds up nobody.
3. A sleeping thread waits for a lock of its own (one system call to wake it). It enters itself into the list of
   sleepers and removes itself, so a waker that is interrupted (KeyboardInterrupt in the main thread) loses nobody.
Invariant, whenever the lock is free: tasks and sleepers at the same time only while a thread is being woken.
"""

from __future__ import annotations

import collections
import threading
from typing import Any, Callable, Deque, List, Optional, Tuple

Task = Tuple[Callable[[Any], None], Any]


class TaskQueue:
    """See the module's text. All methods may be called from any thread."""

    def __init__(self) -> None:
        #: guards the four below; nothing is called while it is held
        self._lock = threading.Lock()
        self._tasks: "Deque[Task]" = collections.deque()
        self._sleepers: "List[threading.Lock]" = []
        self._waking = False
        self._closed = False

    def put(self, task: Task) -> None:
        """Append *task*, and see to it that a thread comes for it."""
        sleeper = None
        try:
            with self._lock:
                self._tasks.append(task)
                if self._sleepers and not self._waking:
                    sleeper = self._sleepers[0]
                    self._waking = True
        finally:
            if sleeper is not None:
                _wake(sleeper)

    def take(self, bed: threading.Lock) -> Optional[Task]:
        """The next task; waits for one. None when the queue is closed. *bed* is a locked lock of the calling thread."""
        sleeper, woken = None, False
        while True:
            with self._lock:
                if woken:
                    self._sleepers.remove(bed)
                    self._waking = False
                if self._closed:
                    return None
                if self._tasks:
                    task = self._tasks.popleft()
                    if self._tasks and self._sleepers and not self._waking:
                        sleeper = self._sleepers[0]
                        self._waking = True
                    break
                self._sleepers.append(bed)
            woken = bed.acquire()
        if sleeper is not None:
            _wake(sleeper)
        return task

    def close(self) -> List[Task]:
        """Let every take() return None from now on. Returns the tasks nobody has taken."""
        with self._lock:
            self._closed = True
            tasks = list(self._tasks)
            self._tasks.clear()
            sleepers = list(self._sleepers)
        for sleeper in sleepers:
            _wake(sleeper)
        return tasks


def _wake(sleeper: threading.Lock) -> None:
    try:
        sleeper.release()
    except RuntimeError:
        pass  # released already: close() and put() met
