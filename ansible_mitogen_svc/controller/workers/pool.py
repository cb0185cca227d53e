# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The threads that run tasks. Owned by the strategy mixin's `WorkerLayer`; jobs are put in by the main thread only."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PoolStatistics:
    """`threads`: started so far; `jobs`: taken so far."""

    threads: int
    jobs: int


class WorkerThreads:
    """Daemon threads, started one by one as jobs come while all others are busy, and kept until `close`.

    They are daemons because a thread that waits for a target must not keep ansible-playbook alive after Ctrl-C.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._busy = 0
        self._taken = 0
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._threads = []

    def statistics(self) -> PoolStatistics:
        """Counts since the pool was made."""
        return PoolStatistics(len(self._threads), self._taken)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in a thread, at once. `job` must not raise."""
        with self._lock:
            self._busy += 1
            self._taken += 1
            if self._busy > len(self._threads):
                thread = threading.Thread(target=self._serve, name=f"task-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                # A reference kept here would keep the last task's variables alive until the next one comes.
                del job
                with self._lock:
                    self._busy -= 1

    def close(self, timeout: float) -> bool:
        """Stop idle threads, wait at most `timeout` seconds for the others in all. Whether all have ended."""
        threads, self._threads = self._threads, []
        for _thread in threads:
            self._jobs.put(None)
        share = timeout / max(1, len(threads))
        for thread in threads:
            thread.join(share)
        return not any(thread.is_alive() for thread in threads)
