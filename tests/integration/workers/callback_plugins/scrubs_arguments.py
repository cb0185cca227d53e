# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Takes everything out of the arguments of each task that it is told about, as one does that must not show them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: scrubs_arguments
type: aggregate
short_description: empties the arguments of tasks in results
description: In place.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "scrubs_arguments"
    CALLBACK_NEEDS_ENABLED = True

    def _scrub(self, result: Any) -> None:
        arguments = getattr(result, "task", None) or result._task
        for value in arguments.args.values():
            if isinstance(value, list):
                value.clear()
        arguments.args.clear()

    v2_runner_on_ok = v2_runner_item_on_ok = v2_runner_retry = _scrub
