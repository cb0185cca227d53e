# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The threads that run tasks. Owned by the strategy mixin's `WorkerLayer`; jobs are put in by the main thread only."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PoolStatistics:
    """`threads`: started so far; `jobs`: taken so far; `busy`: jobs that have not ended yet."""

    threads: int
    jobs: int
    busy: int


@dataclass
class _Generation:
    """The threads between two times that the pool is closed, and what they share.

    A thread that did not end in time stays with its generation: neither does it count among the next one's threads, nor
    can what tells it to end be taken by one of them.
    """

    jobs: queue.SimpleQueue[Callable[[], None] | None] = field(default_factory=queue.SimpleQueue)
    threads: list[threading.Thread] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0

    def serve(self) -> None:
        """The life of a thread."""
        while (job := self.jobs.get()) is not None:
            try:
                job()
            except BaseException:
                # The thread is counted on. What is wrong is shown as Python shows what ends a thread.
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            finally:
                # A reference kept here would keep the last task's variables alive until the next one comes.
                del job
                with self.lock:
                    self.busy -= 1


class WorkerThreads:
    """Daemon threads, started one by one as jobs come while all others are busy, and kept until `close`.

    They are daemons because a thread that waits for a target must not keep ansible-playbook alive after Ctrl-C.
    """

    def __init__(self) -> None:
        self._current = _Generation()
        self._taken = 0
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._current = _Generation()

    def statistics(self) -> PoolStatistics:
        """Counts since the pool was made, or closed."""
        return PoolStatistics(len(self._current.threads), self._taken, self._current.busy)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in a thread, at once. `job` must not raise."""
        current = self._current
        self._taken += 1
        with current.lock:
            current.busy += 1
            if current.busy > len(current.threads):
                thread = threading.Thread(target=current.serve, name=f"task-{len(current.threads)}", daemon=True)
                current.threads.append(thread)
                thread.start()
        current.jobs.put(job)

    def close(self, timeout: float) -> bool:
        """Stop idle threads, wait at most `timeout` seconds for the others in all. Whether all have ended."""
        ending, self._current = self._current, _Generation()
        for _thread in ending.threads:
            ending.jobs.put(None)
        share = timeout / max(1, len(ending.threads))
        for thread in ending.threads:
            thread.join(share)
        return not any(thread.is_alive() for thread in ending.threads)
