# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Core's TaskExecutor with our connections and actions in it.

Used by every kind of task worker (controller/workers/). Some of core's methods are looked at
(ansible/executor/task_executor.py, the same in 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1, but that 2.19's and 2.20's `run`
gives a dict): what they return is replaced, what they do is not.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ansible.executor.task_executor import TaskExecutor

from ansible_mitogen_svc.controller import action_classes, connection
from ansible_mitogen_svc.controller.compat import module_build, module_walk, template_code
from ansible_mitogen_svc.controller.loop_ahead import LoopAhead, loop_ahead
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.controller.target import round_trips
from ansible_mitogen_svc.spans import recorder
from ansible_mitogen_svc.statistics import counters

if TYPE_CHECKING:
    from ansible.executor.task_executor import TaskExecutor as _Core
else:
    # The real base is whatever class stands behind the mixin.
    _Core = object


class AcceleratedExecutor(_Core):
    """Mixin over a TaskExecutor; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shared_loader_obj: Any = action_classes.with_our_actions(self._shared_loader_obj)
        #: The connections of the task; a loop's items may have one each.
        self._svc_connections: list[connection.AcceleratedConnection] = []
        self._svc_loop_ahead: LoopAhead | None = None

    def run(self) -> Any:
        """Run the task; counts its round trips."""
        round_trips.take()
        try:
            with recorder.running(str(self._host.name), str(self._task._uuid)):
                return super().run()
        finally:
            if self._svc_loop_ahead is not None:
                self._svc_loop_ahead.end()
            counters.task_round_trips(round_trips.take())
            for each in self._svc_connections:
                each.svc_release()
            session_lifecycle.task_ended()

    def _get_connection(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_connection(*args, **kwargs)
        ours = connection.accelerated(found, str(self._task.delegate_to or self._host.name))
        if ours is found:
            counters.add("other_connections", str(getattr(found, "ansible_name", None) or type(found).__module__))
        else:
            self._svc_connections.append(ours)
            ours.svc_loop_ahead = self._svc_loop_ahead
        return ours

    def _get_loop_items(self) -> Any:
        items = super()._get_loop_items()
        self._svc_loop_ahead = loop_ahead(self._task, items)
        return items

    def _execute(self, *args: Any, **kwargs: Any) -> Any:
        if self._svc_loop_ahead is not None:
            self._svc_loop_ahead.next_item()
        return super()._execute(*args, **kwargs)

    def _poll_async_result(self, *args: Any, **kwargs: Any) -> Any:
        current = self._connection
        if not isinstance(current, connection.AcceleratedConnection):
            return super()._poll_async_result(*args, **kwargs)
        current.svc_polls = True
        try:
            return super()._poll_async_result(*args, **kwargs)
        finally:
            current.svc_polls = False

    def _set_connection_options(self, variables: Any, templar: Any) -> Any:
        current = self._connection
        if isinstance(current, connection.AcceleratedConnection):
            current.svc_variables, current.svc_templar = variables, templar
        return super()._set_connection_options(variables, templar)


@functools.cache
def executor_class(base: type[TaskExecutor]) -> type[TaskExecutor]:
    """`base` with our mixin in front."""
    if module_build.remember_imports():
        module_walk.install()
    template_code.install()
    return type(base.__name__, (AcceleratedExecutor, base), {"__module__": base.__module__})
