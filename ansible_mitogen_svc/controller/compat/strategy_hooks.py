# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The methods of core's StrategyBase that our strategies replace, each handing over to the worker layer.

Mixed in front of a core strategy by ``controller/strategy.py``. Main thread, except the two conversions, which core's
results thread calls. Without a layer (unknown core) every method is core's own.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ansible_mitogen_svc.controller.compat import lockstep_callbacks
from ansible_mitogen_svc.controller.compat.adapter import QueuedTask
from ansible_mitogen_svc.controller.workers.wakeup import WakingDeque, WakingQueue

if TYPE_CHECKING:
    from ansible_mitogen_svc.controller.ahead import ModulesAhead
    from ansible_mitogen_svc.controller.workers.layer import WorkerLayer


class StrategyHooks:
    """See the module. The class it is mixed into gives the four methods that raise NotImplementedError here."""

    _layer: WorkerLayer | None = None
    _ahead: ModulesAhead | None = None
    # Attributes of core's StrategyBase and of every plugin object.
    _tqm: Any
    _loader: Any
    _variable_manager: Any
    _load_name: str
    _original_path: str
    ALLOW_BASE_THROTTLING: bool

    def begin_play(self, play: Any) -> None:
        """Before the first task. May raise."""
        raise NotImplementedError

    def expect_tasks(self, blocks: list[Any]) -> None:
        """Before the first task: what the play consists of."""
        raise NotImplementedError

    def end_play(self) -> None:
        """After the last task, or when the play is broken off."""
        raise NotImplementedError

    def before_reset_connection(self, host_name: str) -> None:
        """Before core resets the connection of a host."""
        raise NotImplementedError

    @property
    def forks(self) -> int:
        """How many tasks run at once."""
        return int(self._tqm._forks)

    def wake_by(self, event: threading.Event) -> None:
        """Let results and requests set `event`. Before anything is queued."""
        self._results = WakingDeque(event)
        if hasattr(self, "_rpc_queue"):
            self._rpc_queue = WakingQueue(event)

    def run(self, iterator: Any, play_context: Any) -> Any:
        self.begin_play(iterator._play)
        self.expect_tasks(iterator._blocks)
        # Core's debugger and its default callback behave by the name of the strategy, and know only core's names: under
        # another one `free` would label its output like `linear`, and a redo of a run_once task would lose hosts.
        # Callbacks of collections know its short name only.
        name = self._load_name.rpartition(".")[2]
        iterator._play.strategy = name
        lockstep_callbacks.note_strategy(self._tqm, name)
        return super().run(iterator, play_context)  # type: ignore[misc]

    def cleanup(self) -> None:
        self.end_play()
        super().cleanup()  # type: ignore[misc]

    def _queue_task(self, host: Any, task: Any, task_vars: Any, play_context: Any) -> None:
        if self._layer is None:
            super()._queue_task(host, task, task_vars, play_context)  # type: ignore[misc]
        else:
            if self._ahead is not None:
                self._ahead.reached(task._uuid)
            self._layer.queue(QueuedTask(host, task, task_vars, play_context, self._variable_manager))

    def _process_pending_results(self, iterator: Any, one_pass: bool = False, max_passes: int | None = None) -> Any:
        if self._layer is not None:
            self._layer.restart_abandoned()
            if not self.ALLOW_BASE_THROTTLING:
                self._layer.rest()
            elif max_passes is not None and self._layer.holds_results():
                return []
        return super()._process_pending_results(  # type: ignore[misc]
            iterator, one_pass=one_pass, max_passes=max_passes
        )

    def _wait_on_pending_results(self, iterator: Any) -> Any:
        if self._layer is None:
            return super()._wait_on_pending_results(iterator)  # type: ignore[misc]
        return self._layer.wait(iterator)

    def _execute_meta(self, task: Any, play_context: Any, iterator: Any, target_host: Any) -> Any:
        if self._layer is not None:
            self._layer.note_work()
            if task.args.get("_raw_params") == "reset_connection":
                self.before_reset_connection(target_host.name)
        return super()._execute_meta(task, play_context, iterator, target_host)  # type: ignore[misc]

    def _convert_wire_task_result_to_raw(self, wire_task_result: Any) -> Any:
        """ansible-core 2.19 and 2.20."""
        if self._layer is not None and self._layer.answer_doorbell(wire_task_result):
            return None
        return super()._convert_wire_task_result_to_raw(wire_task_result)  # type: ignore[misc]

    def _convert_wire_task_result_to_host_task_result(self, wire_task_result: Any) -> Any:
        """ansible-core 2.21 and newer."""
        if self._layer is not None and self._layer.answer_doorbell(wire_task_result):
            return None
        return super()._convert_wire_task_result_to_host_task_result(wire_task_result)  # type: ignore[misc]
