# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The worker layer of one strategy object: takes tasks from the strategy's loop, gives them to workers of three kinds.

Made by the strategy mixin for each play; everything here runs in the main thread, except `_ring`, `answer_doorbell`
and `_abandoned`.

Theory of operation

1. The strategy calls `queue` for each (host, task). The layer waits for a free slot within the task's throttle, decides
   on a kind, tells callbacks that the task starts, and starts it.
2. While it waits, for a slot or (in `wait`) for results, it answers requests of workers and restarts tasks that were
   abandoned. It sleeps on one event, which results, requests, freed slots and abandoned tasks set.
3. Worker processes set it only through their results; that their slot is free, or that they died, shows by looking.
   So it sleeps for short while there are any.
4. A strategy that is not lockstep (free, host_pinned) never calls `wait` before its end, but goes round and round.
   `rest` lets it sleep when a whole round has started nothing.
5. A lockstep strategy takes in results between two hosts of a task, too. Under core there are none before the first
   worker process has ended, which is when as many hosts as may run at once have started: until then all hosts see each
   other's variables as they were before the task. Here a host is done sooner, so its result waits (`holds_results`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_mitogen_svc.controller.compat.adapter import CoreAdapter, QueuedTask
from ansible_mitogen_svc.controller.compat.worker_process import GuardedWorkerProcess, start_forked
from ansible_mitogen_svc.controller.workers.decision import Decider
from ansible_mitogen_svc.controller.workers.delivery import DOORBELL, Doorbell, TaskReporter
from ansible_mitogen_svc.controller.workers.gate import ForkGate
from ansible_mitogen_svc.controller.workers.held_signals import HeldSignals
from ansible_mitogen_svc.controller.workers.kinds import Decision, WorkerKind
from ansible_mitogen_svc.controller.workers.plugin_policy import Abandon
from ansible_mitogen_svc.controller.workers.pool import WorkerThreads
from ansible_mitogen_svc.controller.workers.task_worker import TaskWorker, WorkerServices
from ansible_mitogen_svc.spans import recorder
from ansible_mitogen_svc.statistics import counters

#: Seconds of sleep between looks at worker processes, and when there are none.
LOOK_AT_PROCESSES = 0.005
LOOK_AT_THREADS = 0.25

_display = Display()


@dataclass(frozen=True)
class LayerParts:
    """What is made once per process and serves every play."""

    adapter: CoreAdapter
    executor_class: type
    process_class: type[GuardedWorkerProcess]
    threads: WorkerThreads
    gate: ForkGate


class WorkerLayer:
    """See the module. `strategy`: the object whose tasks these are; `event`: what wakes the main thread."""

    def __init__(self, strategy: Any, parts: LayerParts, decider: Decider, event: threading.Event) -> None:
        self._strategy = strategy
        self._parts = parts
        self._decider = decider
        self._event = event
        self._given_up: deque[tuple[TaskWorker, Abandon]] = deque()
        self._quiet = False
        #: The task that was queued last, and for how many hosts it was; whether core would have results of it yet.
        self._task, self._hosts = "", 0
        self._early = False
        self._doorbell = Doorbell(self._ring)
        self._services = WorkerServices(
            parts.adapter, parts.executor_class, strategy, parts.gate, event.set, self._abandoned
        )

    def _ring(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        try:
            with HeldSignals() if main else contextlib.nullcontext():
                # Any host name does: a doorbell is recognised before it is looked up.
                self._strategy._final_q.put(self._parts.adapter.wire_result("", DOORBELL))
        except OSError:
            pass  # core has closed its queue: the run is over, and nobody asks for what is left any more

    def answer_doorbell(self, wire_result: Any) -> bool:
        """Whether `wire_result` was a doorbell; then what workers left has been passed on. Results thread."""
        if wire_result.task_uuid != DOORBELL:
            return False
        self._doorbell.answer()
        return True

    def queue(self, queued: QueuedTask) -> None:
        """Start a task, after waiting for a slot. :raises AnsibleError: as core's ``_queue_task``."""
        strategy, task = self._strategy, queued.task
        arrived = time.monotonic()
        self._quiet = False
        templar = self._parts.adapter.templar(strategy, queued.task_vars)
        limit = self._slot_limit(task, templar)
        self._count(task._uuid, limit)
        decision = self._decider.decide(queued, _action(task, templar), strategy.debugger_active, templar)
        slot = self._free_slot(limit)
        strategy._queued_task_cache[(queued.host.name, task._uuid)] = {
            "host": queued.host,
            "task": task,
            "task_vars": queued.task_vars,
            "play_context": queued.play_context,
        }
        self._parts.adapter.before_queueing(strategy, queued.host)
        recorder.started(queued.host.name, task._uuid, decision.kind.value, decision.reason, arrived)
        self._start(queued, slot, decision, announce=True)
        self.restart_abandoned()

    def _count(self, task_uuid: str, limit: int) -> None:
        self._hosts = self._hosts + 1 if task_uuid == self._task else 1
        self._task = task_uuid
        self._early = self._hosts <= limit

    def holds_results(self) -> bool:
        """Between two hosts of a task: whether results have to wait. Answers requests of workers meanwhile."""
        if self._early:
            self._serve()
        return self._early

    def _slot_limit(self, task: Any, templar: Any) -> int:
        throttle = task.throttle
        if type(throttle) is not int:
            try:
                throttle = int(templar.template(throttle))
            except Exception as error:
                raise AnsibleError("Failed to convert the throttle value to an integer.", obj=task.throttle) from error
        slots = len(self._strategy._workers)
        if throttle > 0 and self._strategy.ALLOW_BASE_THROTTLING and not task.run_once:
            return min(throttle, slots)
        return slots

    def _free_slot(self, limit: int) -> int:
        workers = self._strategy._workers
        while True:
            self._event.clear()
            self._serve()
            for slot in range(limit):
                worker = workers[slot]
                if worker is None or not worker.is_alive():
                    if worker is not None:
                        worker.close()
                    workers[slot] = None
                    return slot
            self._sleep()

    def _start(self, queued: QueuedTask, slot: int, decision: Decision, announce: bool) -> None:
        strategy = self._strategy
        _display.vvv(f"task worker: {decision.kind.value} ({decision.reason})", host=queued.host.name)
        if announce:
            strategy._tqm.send_callback("v2_runner_on_start", queued.host, queued.task)
        if decision.kind is WorkerKind.FORK:
            counters.add("tasks", decision.kind.value, decision.reason)
            self._fork(queued, slot)
            strategy._pending_results += announce
            return
        worker = self._worker(queued, slot, decision)
        strategy._workers[slot] = worker
        strategy._pending_results += announce
        if decision.kind is WorkerKind.THREAD:
            self._parts.threads.submit(worker.run)
        else:
            worker.run()

    def _fork(self, queued: QueuedTask, slot: int) -> None:
        parts = self._parts
        try:
            start_forked(parts.adapter, parts.process_class, self._strategy, queued, slot, parts.gate)
        except OSError as error:
            raise AnsibleError(
                f"Could not start a worker process for host {queued.host.name}: {error}. Lower the number of forks."
            ) from error

    def _worker(self, queued: QueuedTask, slot: int, decision: Decision) -> TaskWorker:
        adapter = self._parts.adapter
        reporter = TaskReporter(
            self._doorbell,
            lambda *arguments: adapter.snapshot(queued, *arguments),
            self._strategy._tqm.send_callback,
        )
        must_pickle = self._decider.must_pickle(queued.task)
        policy = self._decider.policy(decision.kind)
        policy.settle, reporter.stay = reporter.settle, policy.stay
        if decision.kind is WorkerKind.THREAD:
            queued = queued.as_now()
        return TaskWorker(self._services, queued, slot, decision, policy, reporter, must_pickle)

    def _abandoned(self, worker: TaskWorker, abandoned: Abandon) -> None:
        self._given_up.append((worker, abandoned))
        self._event.set()

    def restart_abandoned(self) -> None:
        """Start what was abandoned as the kind it needs, in the slot it has."""
        while self._given_up:
            worker, abandoned = self._given_up.popleft()
            decision = self._decider.learn(worker.queued.task, abandoned)
            recorder.moved(worker.queued.host.name, worker.queued.task._uuid, decision.kind.value, decision.reason)
            self._start(worker.queued, worker.worker_id, decision, announce=False)

    def _serve(self) -> None:
        self._parts.adapter.serve_requests(self._strategy)
        self.restart_abandoned()

    def _sleep(self) -> None:
        processes = any(worker is not None and worker.pid for worker in self._strategy._workers)
        self._event.wait(LOOK_AT_PROCESSES if processes else LOOK_AT_THREADS)

    def wait(self, iterator: Any) -> list[Any]:
        """Process results until none is pending: core's ``_wait_on_pending_results``.

        :raises AnsibleError: a worker process died.
        """
        strategy = self._strategy
        results: list[Any] = []
        self._task = ""
        while strategy._pending_results > 0 and not strategy._tqm._terminated:
            self._look_for_dead()
            self._event.clear()
            self._quiet = False
            results.extend(strategy._process_pending_results(iterator))
            if strategy._pending_results > 0:
                self._sleep()
        return results

    def _look_for_dead(self) -> None:
        if self._strategy._tqm.has_dead_workers():
            raise AnsibleError("A worker was found in a dead state")

    def note_work(self) -> None:
        """The strategy has done something this round (a meta task): do not `rest`."""
        self._quiet = False

    def rest(self) -> None:
        """Called each round of a strategy that is not lockstep: sleep, if the last round found nothing to do."""
        strategy = self._strategy
        if self._quiet and strategy._pending_results > 0 and not strategy._results:
            self._look_for_dead()
            self._sleep()
        self._event.clear()
        self._quiet = True

    def end(self) -> None:
        """The play is over, or has been broken off: give up what still runs."""
        for worker in self._strategy._workers:
            if isinstance(worker, TaskWorker):
                worker.terminate()
        self._given_up.clear()


def _action(task: Any, templar: Any) -> str | None:
    if "{" not in task.action:
        return str(task.action)
    try:
        return str(templar.template(task.action))
    except AnsibleError:
        return None
