# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The threads of a pool: a fixed number that take tasks from one queue, and a few that run one function each.

A pool makes one Workers and feeds it from the broker thread and from local callers.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, List, Optional, Set

from .task_queue import TaskQueue

LOG = logging.getLogger(__name__)


class Workers:
    """See the module's text.

    Args:
        size: number of fixed threads.
        name: prefix of the threads' names.
        aside_limit: most threads run_aside() may have at a time.
        last_left: called once, after stop(), when no thread is left at work: by the last one as it ends, or by join()
            when somebody is waiting there.
    """

    def __init__(self, size: int, name: str, aside_limit: int, last_left: Callable[[], None]) -> None:
        self.size = size
        self._name = name
        self._aside_limit = aside_limit
        self._last_left: Optional[Callable[[], None]] = last_left
        self._queue = TaskQueue()
        #: guards the four below
        self._lock = threading.Lock()
        self._stopped = False
        self._running = size
        self._joining = 0
        self._aside: Set[threading.Thread] = set()
        #: identities of the fixed threads that are running a task
        self._busy: Set[int] = set()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}.{number}", daemon=True) for number in range(size)
        ]

    def start(self) -> None:
        """Start the fixed threads."""
        for thread in self._threads:
            thread.start()

    def put(self, function: Callable[[Any], None], argument: Any) -> None:
        """Have a fixed thread call ``function(argument)``; what it raises is logged."""
        self._queue.put((function, argument))

    def run_aside(self, function: Callable[[], None]) -> bool:
        """Give *function* a thread of its own if the calling fixed thread is the last free one; whether it did."""
        with self._lock:
            if self._stopped or len(self._busy) < self.size or len(self._aside) >= self._aside_limit:
                return False
            self._running += 1
            thread = threading.Thread(target=self._run_aside, args=(function,), name=f"{self._name}.aside", daemon=True)
            self._aside.add(thread)
        thread.start()
        return True

    def own(self) -> bool:
        """Whether the calling thread is one of these, at work."""
        return threading.get_ident() in self._busy or threading.current_thread() in self._aside

    @property
    def busy(self) -> int:
        """Number of fixed threads at work."""
        return len(self._busy)

    @property
    def aside(self) -> int:
        """Number of threads run_aside() has now."""
        return len(self._aside)

    def stop(self) -> List[Any]:
        """Let threads end when they have done what they do now. Returns the arguments of the tasks not begun."""
        with self._lock:
            self._stopped = True
        return [argument for _function, argument in self._queue.close()]

    def join(self, until: float) -> bool:
        """Wait for all threads to end, at longest to time.monotonic() == *until*; whether they have."""
        with self._lock:
            self._joining += 1
            threads = [*self._threads, *self._aside]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            self._joining -= 1
        self._finish_if_last()
        return self._running == 0

    def _work(self) -> None:
        me, take, busy = threading.get_ident(), self._queue.take, self._busy
        bed = threading.Lock()
        bed.acquire()
        while True:
            task = take(bed)
            if task is None:
                break
            busy.add(me)
            try:
                task[0](task[1])
            except Exception:
                LOG.exception("%s: a task failed", self._name)
            busy.discard(me)
            del task  # nothing of the last call may live on while we wait
        self._leave()

    def _run_aside(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            LOG.exception("%s: a task failed", self._name)
        with self._lock:
            self._aside.discard(threading.current_thread())
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1
        self._finish_if_last()

    def _finish_if_last(self) -> None:
        with self._lock:
            if self._running or self._joining or not self._stopped:
                return
            last_left, self._last_left = self._last_left, None
        if last_left is not None:
            last_left()
