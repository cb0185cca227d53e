# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs commands with input, as plugins do that name a directory or a shell for them."""
from __future__ import annotations

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Says of each command where it ran, in which shell, as whom and with which input."""

    def run(self, tmp=None, task_vars=None):  # type: ignore[no-untyped-def]  # noqa: ANN201
        """Core's interface."""
        result = super().run(tmp, task_vars)
        self._execute_module('ansible.legacy.ping', {}, task_vars=task_vars)
        command = 'pwd; readlink /proc/$$/exe; id -un; cat'
        plain = self._low_level_execute_command('id -un; cat', in_data=b'plain')
        directory = self._low_level_execute_command(command, in_data=b'one', chdir='/usr')
        shell = self._low_level_execute_command(command, in_data=b'two', executable='/bin/bash', chdir='/')
        by_place = self._low_level_execute_command(command, True, b'three', '/bin/bash', 'strict', '/usr/bin')
        after = self._execute_module('ansible.legacy.command', {'_raw_params': 'id -un'}, task_vars=task_vars)
        commands = {'plain': plain, 'directory': directory, 'shell': shell, 'by_place': by_place}
        return {**result, 'commands': commands, 'after': after['stdout']}
