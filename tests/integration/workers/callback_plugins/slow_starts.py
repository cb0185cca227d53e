# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Takes its time before each host of a task named "slowly ...", so that the hosts before it are done by then."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: slow_starts
type: aggregate
short_description: delays the start of some tasks
description: By SECONDS for each host.
"""
SECONDS = 0.7


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "slow_starts"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if task.get_name().startswith("slowly"):
            time.sleep(SECONDS)
