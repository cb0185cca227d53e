# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Programs that core's lookups `lines` and `pipe` start find what they would find in a worker process.

Such lookups get a worker process where they are seen in time (`workers/plugin_policy.py`). What asks for them later, a
file of `template`, `changed_when`, an item of a loop, does so in ansible-playbook itself, whose standard error no
program inherits: core has marked it so. What writes to it would fail.

Theory of operation
1. In both modules the name `subprocess` is given something that starts programs of tasks in this process as core's
   worker processes would (ansible/executor/process/worker.py, `_detach`, in 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1):
   standard error is /dev/null, and session and process group are not those of ansible-playbook.
2. So Ctrl-C does not reach them. Core's worker process ends its group; here that is done when the lookup is broken off,
   and for those that other threads wait for by `end_programs`.
3. Elsewhere, in a worker process and in the main thread between tasks, it is Python's own.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
from typing import Any

from ansible._internal import _task

from ansible_mitogen_svc.controller.compat.session_isolation import workers_are_isolated
from ansible_mitogen_svc.controller.workers.plugin_policy import learned_by_task

_MODULES = ("ansible.plugins.lookup.lines", "ansible.plugins.lookup.pipe")

_running: set[Program] = set()


class Program(subprocess.Popen[Any]):
    """A program that a task in this process waits for."""

    def communicate(self, *arguments: Any, **keywords: Any) -> Any:
        """As Popen's; the program ends with it."""
        _running.add(self)
        try:
            return super().communicate(*arguments, **keywords)
        finally:
            _running.discard(self)
            self.end()

    def end(self) -> None:
        """End it, and what it has started, unless it has ended."""
        if self.returncode is None:
            try:
                os.killpg(self.pid, signal.SIGTERM)
            except (PermissionError, ProcessLookupError):
                pass


class _LookupSubprocess:
    """The module `subprocess`, as the lookups see it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    @staticmethod
    def Popen(*arguments: Any, **keywords: Any) -> subprocess.Popen[Any]:  # noqa: N802 - its name there
        """Start a program."""
        if learned_by_task() is None:
            return subprocess.Popen(*arguments, **keywords)
        ambient = _task.TaskContext.current(optional=True)
        isolated = workers_are_isolated(getattr(ambient, "task_vars", None) or {})
        apart: dict[str, Any] = {"start_new_session": True} if isolated else {"process_group": 0}
        return Program(*arguments, **{"stderr": subprocess.DEVNULL, **apart, **keywords})


def install() -> None:
    """Put it there. Doing it again changes nothing."""
    for name in _MODULES:
        module = importlib.import_module(name)
        if getattr(module, "subprocess", None) is subprocess:
            module.subprocess = _LookupSubprocess()  # type: ignore[attr-defined]


def end_programs() -> None:
    """The run ends: nothing waits for them any more."""
    for program in [*_running]:
        program.end()
