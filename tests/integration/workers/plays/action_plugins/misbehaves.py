# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""An action that does what a worker has to survive; `how` says what.

Core loses the whole run when an action exits. TEST_EXIT_IS_AN_ERROR makes it the failure that ours makes of it, so that
what comes after can be compared.
"""

from __future__ import annotations

import os
import sys
import threading

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        how = self._task.args["how"]
        result = super().run(tmp, task_vars)
        if how == "exit" and "TEST_EXIT_IS_AN_ERROR" in os.environ:
            raise AnsibleError("The task's action ended its worker with SystemExit: enough")
        if how == "exit":
            sys.exit("enough")
        if how == "interrupt":
            raise KeyboardInterrupt("as if typed")
        if how == "interrupt the worker":
            self.break_the_worker(KeyboardInterrupt("as if typed"))
        if how == "print":
            print("a stray line")
            print("another", file=sys.stderr)
        if how == "unpicklable":
            result["lock"] = threading.Lock()
        if how == "break the worker":
            self.break_the_worker(RuntimeError("a fault of the worker layer"))
        if how == "pid":
            result["pid"] = os.getpid()
        return result

    def break_the_worker(self, error):
        """Make what this task's worker does after the action fail, that once."""
        from ansible_mitogen_svc.controller.workers.task_worker import TaskWorker

        intact = TaskWorker._warn_of_prints

        def broken(*arguments):
            TaskWorker._warn_of_prints = intact
            raise error

        TaskWorker._warn_of_prints = broken
