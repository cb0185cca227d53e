# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A second thread for a running task: what the transport does meanwhile, such as connecting, as part of that task.

Called in any worker, also in a worker process. The thread shares the task's ambient contexts, its queued display
messages and its plugin policy, and counts for the fork gate like the task itself. What it must not share is core's
stack of template audits: each thread pushes and pops its own.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ansible_mitogen_svc.controller.compat.access import own_access_context
from ansible_mitogen_svc.controller.workers import output, plugin_policy
from ansible_mitogen_svc.controller.workers.gate import fork_gate

T = TypeVar("T")


def start_beside(function: Callable[[], T], name: str) -> Future[T]:
    """Call `function` in a thread of that name, beside the current thread's task. Its outcome, once there is one."""
    outcome: Future[T] = Future()
    context = contextvars.copy_context()
    restore_output, restore_policy = output.carried_over(), plugin_policy.carried_over()
    counts = fork_gate.is_inside()

    def call() -> T:
        own_access_context()
        restore_output()
        restore_policy()
        return function()

    def serve() -> None:
        try:
            if counts:
                with fork_gate.task():
                    result = context.run(call)
            else:
                result = context.run(call)
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=serve, name=name, daemon=True).start()
    return outcome
