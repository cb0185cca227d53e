# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Tells under which name a play's strategy is known: when the play begins, as ansible.posix.json does, and later."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: notes_strategy
type: aggregate
short_description: tells the name of the strategy
description: As callbacks do that behave by the name of the strategy.
"""

LOCKSTEP_CALLBACKS = frozenset(("linear", "debug"))


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "notes_strategy"
    CALLBACK_NEEDS_ENABLED = True

    _is_lockstep = False
    _play: Any = None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play
        self._is_lockstep = play.strategy in LOCKSTEP_CALLBACKS

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._display.display(f"noted: {task.get_name()} {self._play.strategy} {self._is_lockstep}")

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)
