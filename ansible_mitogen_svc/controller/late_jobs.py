# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Asynchronous jobs that are asked about before they exist.

Used by the action mixin (action.py) in a task worker. Core's async_wrapper answers when the file of the job's status is
there, or after 2.5 seconds. On a host that is too busy for that, core's first question still finds the file most of the
time: it has to start a Python, which takes the longer the busier the host is. A zygote is quicker, so what it does not
find is looked for once more as core would look for it.
"""

from __future__ import annotations

from ansible_mitogen_svc.controller.running import Job

#: In the statistics.
REASON = "async job not found"


def asked_too_early(job: Job | None, stdout: str) -> bool:
    """Whether a command that was run as `job` is a question for an asynchronous job which may just not exist yet."""
    if job is None or job.payload is None or job.payload.module != "ansible.modules.async_status":
        return False
    return "could not find job" in stdout
