# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Changes the environment of ansible-playbook with each task, as one does that has a token renewed."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: changes_environment
type: aggregate
short_description: counts tasks in the environment
description: >-
  In COUNTED; UNTIL_THIRD is there until the third, as is FROM_START, if it was there, and PYTHONHASHSEED from the
  fourth on.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "changes_environment"
    CALLBACK_NEEDS_ENABLED = True
    counted = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.counted += 1
        os.environ["COUNTED"] = str(self.counted)
        if self.counted < 3:
            os.environ["UNTIL_THIRD"] = "here"
        else:
            os.environ.pop("UNTIL_THIRD", None)
            os.environ.pop("FROM_START", None)
        if self.counted > 3:
            os.environ["PYTHONHASHSEED"] = "4"
