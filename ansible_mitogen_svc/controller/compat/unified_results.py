# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""ansible-core 2.21 and 2.22: a task's outcome is a ``UnifiedTaskResult``, results are ``HostTaskResult``."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import types
from collections.abc import Callable, Iterator
from typing import Any

from ansible._internal import _task
from ansible._internal._worker import _inventory_rpc

from ansible_mitogen_svc.controller.compat.adapter import CoreAdapter, QueuedTask
from ansible_mitogen_svc.controller.workers.live_task import reported_copy
from ansible_mitogen_svc.controller.workers.output import no_worker_output


def _as_the_controller(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of whose messages the task knows nothing: under core it runs in the controller's process, which shows
    them itself, while those of a task are part of its result."""

    def call(*arguments: Any) -> Any:
        with no_worker_output():
            return contextvars.Context().run(function, *arguments)

    return call


_DIRECT = types.SimpleNamespace(
    add_host=_as_the_controller(_inventory_rpc.InventoryRPC.add_host.__wrapped__),
    add_group=_as_the_controller(_inventory_rpc.InventoryRPC.add_group.__wrapped__),
)


class UnifiedResultsAdapter(CoreAdapter):
    """See the module."""

    @contextlib.contextmanager
    def task_context(self, task: Any, task_vars: dict[str, Any], host: Any, inline: bool) -> Iterator[None]:
        ambient = _task.TaskContext.create(task=task, task_vars=dict(task_vars), host_name=host.name)
        # A worker in this process needs no socket to reach the inventory. A thread has the main thread do it, as core's
        # server would; the main thread would wait for itself, so it calls the functions below that.
        ambient.__dict__["inventory_rpc_client"] = _DIRECT if inline else _inventory_rpc.InventoryRPC
        try:
            with ambient:
                yield
        finally:
            _forget_secret_tracker(ambient)

    def run(self, executor_class: type, queued: QueuedTask, task: Any, strategy: Any, reporter: Any) -> Any:
        task.squash()
        executor = executor_class(
            queued.host,
            queued.play_context,
            strategy._loader,
            self.shared_loaders(),
            reporter,
            queued.variable_manager,
        )
        outcome = executor.run()
        outcome.finalize_registered_values()
        return outcome

    def failure(self, error: BaseException) -> Any:
        outcome = _task.UnifiedTaskResult.create_from_action_exception(error)
        outcome.finalize_registered_values()
        return outcome

    def result(self, queued: QueuedTask, task: Any, outcome: Any) -> Any:
        reported = reported_copy(task, queued.task)
        reported.ignore_errors = outcome.ignore_errors
        reported.ignore_unreachable = outcome.ignore_unreachable
        return _task.HostTaskResult(host=queued.host, task=reported, utr=outcome)

    def snapshot(self, queued: QueuedTask, *arguments: Any) -> tuple[str, Any]:
        method, host, task, outcome = arguments
        reported = reported_copy(task, queued.task)
        return method, _task.HostTaskResult(host=host, task=reported, utr=copy.copy(outcome))

    def wire_result(self, host_name: str, task_uuid: str) -> Any:
        empty = _task.UnifiedTaskResult(is_module=False)
        return _task.WireTaskResult(host_name=host_name, task_uuid=task_uuid, task_fields={}, utr=empty)

    def is_skipped_by_condition(self, task: Any, task_vars: dict[str, Any]) -> bool:
        return not task._resolve_conditional(task.when, task_vars)

    def more_worker_arguments(self, strategy: Any) -> dict[str, Any]:
        tqm = strategy._tqm
        return {"stacktrace_dir": tqm.stacktrace_dir} if hasattr(tqm, "stacktrace_dir") else {}

    def before_queueing(self, strategy: Any, host: Any) -> None:
        # 2.22 moved this from the strategies into _queue_task; where they still do it, it does no harm.
        strategy._blocked_hosts[host.name] = True

    def serve_requests(self, strategy: Any) -> None:
        strategy._process_rpc_queue()


def _forget_secret_tracker(ambient: Any) -> None:
    """2.22: each context registers a tracker with the process's masker, and relies on the process ending soon."""
    tracker = getattr(ambient, "_new_secrets", None)
    if tracker is not None:
        masker = tracker._masker
        with masker._lock:
            masker._new_secret_trackers.discard(tracker)
