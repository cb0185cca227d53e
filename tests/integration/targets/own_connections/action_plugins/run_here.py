# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Does on the controller what it is asked for, by a connection that it makes itself (as ansible.posix.synchronize)."""
from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader


class ActionModule(ActionBase):
    """Runs a command on the host, two here, makes a file here, and runs a command on the host again."""

    _supports_check_mode = False

    def run(self, tmp=None, task_vars=None):  # type: ignore[no-untyped-def]  # noqa: ANN201
        """Core's interface."""
        result = super().run(tmp, task_vars)
        there = self._execute_module('ansible.legacy.command', {'_raw_params': 'id -un'}, task_vars=task_vars)
        theirs = self._connection
        self._connection = connection_loader.get('local', self._play_context)
        self._connection._remote_is_local = True
        python = {**task_vars, 'ansible_python_interpreter': task_vars['ansible_playbook_python']}
        here = self._execute_module('ansible.legacy.command', {'_raw_params': 'printenv HOME'}, task_vars=python)
        command = self._low_level_execute_command('echo "$HOME"; echo beware >&2; exit 3', sudoable=False)
        path = self._make_tmp_path()
        file = self._transfer_data(self._connection._shell.join_path(path, 'file'), 'some content')
        self._fixup_perms2([path, file])
        with open(file, encoding='utf-8') as stream:
            content = stream.read()
        self._remove_tmp_path(path)
        self._connection = theirs
        again = self._execute_module('ansible.legacy.command', {'_raw_params': 'id -un'}, task_vars=task_vars)
        return {**result, 'there': there['stdout'], 'again': again['stdout'], 'here': here['stdout'], 'shell': command,
                'content': content}
