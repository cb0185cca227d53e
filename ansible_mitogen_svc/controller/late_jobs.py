# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Questions for asynchronous jobs that are asked too early.

Used by the action mixin (action.py) in a task worker; the executor's (executor.py) says which questions are core's own.

Core's async_wrapper answers when the file of the job's status is there, or after 2.5 seconds. On a host that is too
busy for that, core's first question still finds the file most of the time: it has to start a Python, which takes the
longer the busier the host is. The same holds for a job that has not ended: `async` and `poll` allow a number of
questions, and a job on a busy host has the time that these take as well. A zygote is quicker. So where it does not find
the job, or core's own question (``poll`` above 0) finds that the job goes on, it is asked once more as core would ask.
"""

from __future__ import annotations

import json

from ansible_mitogen_svc.controller.running import Job


def why_too_early(job: Job | None, stdout: str, polls: bool) -> str:
    """Why a command that was run as `job` is to be run once more, for the statistics; empty when it is not.

    :param polls: it is core's own question for the job of its task.
    """
    if job is None or job.payload is None or job.payload.module != "ansible.modules.async_status":
        return ""
    reason = "async job not found"
    if "could not find job" in stdout:
        return reason
    reason = "async job goes on"
    return reason if polls and _goes_on(stdout) else ""


def _goes_on(stdout: str) -> bool:
    try:
        answer = json.loads(stdout)
    except ValueError:
        return False
    # A number before 2.21.
    return isinstance(answer, dict) and answer.get("finished") == 0
