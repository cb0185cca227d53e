# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""One task in a worker inside this process: in a thread of the pool, or inline in the main thread.

Made by the `WorkerLayer` in the main thread; `run` is called in the thread that runs the task.
"""

from __future__ import annotations

import contextvars
import pickle
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_mitogen_svc.controller.compat.adapter import CoreAdapter, QueuedTask
from ansible_mitogen_svc.controller.workers.delivery import TaskReporter
from ansible_mitogen_svc.controller.workers.gate import ForkGate
from ansible_mitogen_svc.controller.workers.heard_signals import HeardSignals
from ansible_mitogen_svc.controller.workers.kinds import Decision, WorkerKind
from ansible_mitogen_svc.controller.workers.live_task import worker_copy
from ansible_mitogen_svc.controller.workers.output import SHOWN, Captured, worker_output
from ansible_mitogen_svc.controller.workers.plugin_policy import Abandon, TaskPolicy, policy_of_this_thread
from ansible_mitogen_svc.statistics import counters

_display = Display()


class Terminated(SystemExit):
    """SIGTERM, as the main thread sees it: unwinds like Ctrl-C, and ends the process with the signal's status."""


#: In the main thread these end the run, also in the middle of an inline task. A thread gets no signals: there it is
#: the task's own code that raises them.
ENDS_RUN = (KeyboardInterrupt, Terminated)


@dataclass(frozen=True)
class WorkerServices:
    """What workers share: see the modules the types come from. `freed`: called when a worker has ended."""

    adapter: CoreAdapter
    executor_class: type
    strategy: Any
    gate: ForkGate
    freed: Callable[[], None]
    abandoned: Callable[[TaskWorker, Abandon], None]


class TaskWorker:
    """Occupies a slot of ``TaskQueueManager._workers``, where core expects a WorkerProcess.

    :param queued: what to run.
    :param slot: index of the slot.
    :param decision: why it runs here.
    :param policy: what the task may load.
    :param round_trip: whether the result must survive pickling, as it would have to under core.
    """

    #: What core reads of a WorkerProcess. No thread ever dies without handing in a result.
    exitcode = None
    pid = None

    def __init__(
        self,
        services: WorkerServices,
        queued: QueuedTask,
        slot: int,
        decision: Decision,
        policy: TaskPolicy,
        reporter: TaskReporter,
        round_trip: bool,
    ) -> None:
        self.worker_id = slot
        self.queued = queued
        self.decision = decision
        self.policy = policy
        # Core's free strategy counts the live workers of a task through this.
        self._task = queued.task
        self._services = services
        self._reporter = reporter
        self._round_trip = round_trip
        self._copy = worker_copy(queued.task)
        self._alive = True

    def is_alive(self) -> bool:
        """Whether the slot is taken."""
        return self._alive

    def close(self) -> None:
        """Nothing to release. As ``multiprocessing.Process.close``."""

    def terminate(self) -> None:
        """Give the slot up; the thread is a daemon, and its result is dropped by then."""
        self._alive = False

    def join(self, timeout: float | None = None) -> None:
        """Nothing to collect. As ``multiprocessing.Process.join``."""

    def run(self) -> None:
        """Run the task and hand in its result. Raises nothing but `ENDS_RUN`, and that in the main thread only."""
        if self.decision.kind is WorkerKind.THREAD:
            with self._services.gate.task():
                contextvars.Context().run(self._run)
        else:
            with HeardSignals() as heard:
                self._reporter.check = heard.check
                contextvars.Context().run(self._run)
                heard.check()

    def _run(self) -> None:
        services = self._services
        try:
            with worker_output(self._reporter.leave) as captured, policy_of_this_thread(self.policy):
                result = self._result(captured)
        except Abandon as abandoned:
            # The slot stays taken: the worker that follows gets it.
            services.abandoned(self, abandoned)
            return
        except BaseException as error:
            if self._ends_run(error):
                self._alive = False
                self._reporter.settle()
                raise
            result = self._last_resort(error)
        self._copy = None
        counters.add("tasks", self.decision.kind.value, self.decision.reason)
        # Free first: whoever sees the result may queue the next task at once.
        self._alive = False
        self._reporter.deliver(services.strategy._results.append, result)
        services.freed()

    def _result(self, captured: Captured) -> Any:
        services, queued, task = self._services, self.queued, self._copy
        adapter = services.adapter
        with adapter.task_context(task, queued.task_vars, queued.host, self.decision.kind is WorkerKind.INLINE):
            try:
                outcome = adapter.run(services.executor_class, queued, task, services.strategy, self._reporter)
                if self._round_trip:
                    outcome = _pickled(outcome)
            except Abandon:
                raise
            except BaseException as error:  # also SystemExit: an action that calls sys.exit fails its own task only
                if self._ends_run(error):
                    raise
                outcome = adapter.failure(_as_error(error))
            try:
                self._warn_of_prints(captured)
                return adapter.result(queued, task, outcome)
            except Exception as error:
                # A fault of this layer. Without a result the run would wait for the task for ever.
                return adapter.result(queued, task, adapter.failure(_as_error(error)))

    def _last_resort(self, error: BaseException) -> Any:
        """The result of a task of which nothing else can be told: without one the run would wait for it for ever."""
        adapter, queued = self._services.adapter, self.queued
        with adapter.task_context(self._copy, queued.task_vars, queued.host, self.decision.kind is WorkerKind.INLINE):
            return adapter.result(queued, self._copy, adapter.failure(_as_error(error)))

    def _ends_run(self, error: BaseException) -> bool:
        return self.decision.kind is WorkerKind.INLINE and isinstance(error, ENDS_RUN)

    def _warn_of_prints(self, captured: Captured) -> None:
        for name, text in captured.texts():
            shown = textwrap.indent(text[:SHOWN], "    ")
            _display.warning(
                f"WorkerProcess for [{self.queued.host}/{self._copy}] errantly sent data directly to {name} "
                f"instead of using Display:\n{shown}\n",
                formatted=True,
            )


def _pickled(outcome: Any) -> Any:
    try:
        return pickle.loads(pickle.dumps(outcome))
    except Exception as error:
        raise AnsibleError("Task result omitted due to queue send failure.") from error


def _as_error(error: BaseException) -> BaseException:
    if isinstance(error, Exception):
        return error
    wrapped = AnsibleError(f"Task failed: The task's action ended its worker with {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return cast(BaseException, wrapped)
