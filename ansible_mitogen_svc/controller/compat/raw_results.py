# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""ansible-core 2.19 and 2.20: a task's outcome is a dict, results are ``_RawTaskResult``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ansible._internal import _task
from ansible._internal._errors import _error_utils
from ansible.executor.task_result import _RawTaskResult, _WireTaskResult

from ansible_mitogen_svc.controller.compat.adapter import CoreAdapter, QueuedTask
from ansible_mitogen_svc.controller.workers.live_task import reported_copy, reported_fields


class RawResultsAdapter(CoreAdapter):
    """See the module."""

    @contextlib.contextmanager
    def task_context(self, task: Any, task_vars: dict[str, Any], host: Any, inline: bool) -> Iterator[None]:
        with _task.TaskContext(task):
            yield

    def run(self, executor_class: type, queued: QueuedTask, task: Any, strategy: Any, reporter: Any) -> Any:
        executor = executor_class(
            queued.host,
            task,
            dict(queued.task_vars),
            queued.play_context,
            strategy._loader,
            self.shared_loaders(),
            reporter,
            queued.variable_manager,
        )
        return executor.run()

    def failure(self, error: BaseException) -> Any:
        failed = _error_utils.result_dict_from_exception(error)
        if not isinstance(error.__cause__, Exception):
            # The action failed, and not the way of its result; core says that of every action that fails.
            failed.setdefault("changed", False)
        return failed

    def result(self, queued: QueuedTask, task: Any, outcome: Any) -> Any:
        return _RawTaskResult(
            host=queued.host,
            task=reported_copy(task, queued.task),
            return_data=outcome,
            task_fields=task.dump_attrs(),
        )

    def snapshot(self, queued: QueuedTask, *arguments: Any) -> tuple[str, Any]:
        method, raw = arguments
        task, fields = reported_copy(raw.task, queued.task), reported_fields(raw.task_fields)
        task.from_attrs(fields)
        # The executor goes on to take keys out of an item's result.
        data = dict(raw._return_data)
        return method, _RawTaskResult(host=raw.host, task=task, return_data=data, task_fields=fields)

    def wire_result(self, host_name: str, task_uuid: str) -> Any:
        return _WireTaskResult(host_name=host_name, task_uuid=task_uuid, return_data={}, task_fields={})

    def is_skipped_by_condition(self, task: Any, task_vars: dict[str, Any]) -> bool:
        return not task._resolve_conditional(task.when, task_vars)

    def before_queueing(self, strategy: Any, host: Any) -> None:
        """Nothing."""

    def serve_requests(self, strategy: Any) -> None:
        """Nothing: workers have no way to ask for anything."""
