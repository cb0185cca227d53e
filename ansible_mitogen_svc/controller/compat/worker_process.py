# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Task workers as processes: core's WorkerProcess with our TaskExecutor, forked while threads are alive.

`start_forked` is called in the main thread; `GuardedWorkerProcess.run` is the child's whole life.

Here and not in ``workers``, as it leans on private names of core.

What happens around the fork, in this order (for the reasons see ``workers/gate.py`` and ``workers/locks.py``): the gate
closes, threads come to rest; the transport prepares; variables lock, loader lock; signals wait; core's display lock;
fork; the same backwards. The child starts with fresh locks, forgets the parent's session and never touches its sockets.
"""

from __future__ import annotations

import gc
import os
import threading
import types
from typing import Any

from ansible.executor.process import worker as core_worker

from ansible_mitogen_svc.controller.compat.adapter import CoreAdapter, QueuedTask
from ansible_mitogen_svc.controller.workers.gate import ForkGate
from ansible_mitogen_svc.controller.workers.held_signals import HeldSignals
from ansible_mitogen_svc.controller.workers.locks import loader_lock, variables_lock

#: Seconds that a worker process may take to end once its task has.
EXIT_LIMIT = 5.0


class GuardedWorkerProcess(core_worker.WorkerProcess):  # type: ignore[misc]
    """Core's worker process, forked under our locks."""

    #: Set on a subclass by `worker_process_class`.
    executor_class: type
    lifecycle: Any
    signals: HeldSignals

    def __init__(self, *, loader: Any, **arguments: Any) -> None:
        # Core's constructor empties the set of the loader it is given, so that the child removes its own files only. In
        # this process that set names the decrypted files of everybody, and a thread may be adding one to it just now.
        super().__init__(loader=types.SimpleNamespace(), **arguments)
        self._loader = loader

    def start(self) -> None:
        """Fork. Core takes its display lock inside."""
        self.signals = HeldSignals()
        with variables_lock, loader_lock, self.signals:
            super().start()

    def run(self) -> None:
        """In the child: core's own run with our executor."""
        try:
            self._begin()
        except (KeyboardInterrupt, SystemExit):
            # The run ends; its process was given the same signal. There is nothing to say, nor to clean up yet.
            os._exit(1)
        core_worker.TaskExecutor = self.executor_class
        try:
            super().run()
        finally:
            # The result is handed over. A thread that a task left behind must not keep the process, and its slot.
            leave = threading.Timer(EXIT_LIMIT, os._exit, (0,))
            leave.daemon = True
            leave.start()

    def _begin(self) -> None:
        self.signals.release()
        self._loader._tempfiles = set()
        # Existing objects stay where they are: a collection that visits them would copy the parent's whole memory.
        gc.freeze()
        self.lifecycle.after_fork_in_child()
        let_go_of_what_is_not_sent(self._final_q)


def let_go_of_what_is_not_sent(queue: Any) -> None:
    """Have `queue.put` raise without the frames of multiprocessing when nobody reads the queue any more.

    They hold a view of the pickled object. When an exception with them becomes garbage, as core's chained ones do, the
    collector may close the buffer before the view: Python then prints a BufferError ("Existing exports of data").
    """
    put = queue.put

    def put_or_raise(item: Any) -> None:
        try:
            put(item)
        except OSError as error:
            raise error.with_traceback(None) from None

    queue.put = put_or_raise


def worker_process_class(executor: type, session_lifecycle: Any) -> type[GuardedWorkerProcess]:
    """GuardedWorkerProcess for one executor class and one session."""
    return type("WorkerProcess", (GuardedWorkerProcess,), {"executor_class": executor, "lifecycle": session_lifecycle})


def start_forked(
    adapter: CoreAdapter,
    process_class: type[GuardedWorkerProcess],
    strategy: Any,
    queued: QueuedTask,
    slot: int,
    gate: ForkGate,
) -> Any:
    """Fork a worker for `queued`, put it into its slot and return it.

    :raises OSError: the process could not be made.
    """
    process = adapter.worker_process(process_class, strategy, queued, slot)
    strategy._workers[slot] = process
    with gate.closed(lambda: adapter.serve_requests(strategy)):
        process_class.lifecycle.before_fork()
        process.start()
    return process
