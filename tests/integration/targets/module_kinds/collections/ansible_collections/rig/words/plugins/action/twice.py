from __future__ import annotations

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs the module two times, with a shell command between: what third-party actions do."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        first = self._execute_module('rig.words.say', {'word': 'first'}, task_vars=task_vars)
        between = self._low_level_execute_command('echo between; echo wrong >&2; exit 3')
        second = self._execute_module('ansible.builtin.command', {'_raw_params': 'echo second'}, task_vars=task_vars)
        path = self._connection._shell.join_path(self._make_tmp_path(), 'data')
        self._transfer_data(path, 'transferred\n')
        third = self._low_level_execute_command('cat ' + path)
        exists = self._remote_file_exists(path)
        # To remove so many takes a while.
        self._low_level_execute_command('cd ' + self._connection._shell.tmpdir + ' && seq 4000 | xargs touch')
        self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update(changed=False, first=first['said'], between=between, second=second['stdout'],
                      third=third['stdout'], exists=exists, home=self._remote_expand_user('~'),
                      after=self._remote_file_exists(path))
        return result
