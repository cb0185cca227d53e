# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Commands of modules are started without a copy of the process, and end as core's do."""
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
#: Runs commands by core's own `run_command`, with ours installed or not; says what became of each, and how many new
#: processes ran Python.
SCRIPT = """
import json, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_mitogen_svc.target import light_commands

if sys.argv[2] == 'light':
    light_commands.install()
    once = subprocess.Popen._execute_child
    light_commands.install()
    assert subprocess.Popen._execute_child is once
reader, writer = os.pipe()
os.register_at_fork(after_in_child=lambda: os.write(writer, b'x'))

class Failed(Exception):
    pass

def fail(**values):
    raise Failed({name: value for name, value in values.items() if name != 'exception'})

outcomes = []
with patch_module_args({}):
    module = basic.AnsibleModule({})
module.fail_json = fail
for command in json.loads(sys.argv[3]):
    arguments = command.pop('args')
    try:
        outcomes.append(module.run_command(arguments, **command))
    except Failed as failure:
        outcomes.append(failure.args)
os.close(writer)
os.set_blocking(reader, False)
copies = len(os.read(reader, 100) or b'')
print(json.dumps([outcomes, copies], default=repr))
"""
COMMANDS: list[dict[str, Any]] = [
    {'args': 'echo "$HOME"; umask; pwd', 'use_unsafe_shell': True},
    {'args': ['sh', '-c', 'cat; echo wrong >&2; exit 3'], 'data': 'input'},
    {'args': ['/there/is/no/such/program', 'a']},
    {'args': ['no-such-program']},
    {'args': ['/etc/passwd']},
    {'args': ['pwd'], 'cwd': '/usr'},
    {'args': ['sh', '-c', 'kill -9 $$']},
    {'args': ['sh', '-c', 'echo $A'], 'environ_update': {'A': 'b'}},
    {'args': ['sh', '-c', 'trap "" PIPE; yes | head -1; trap']},
    {'args': 'exit 4', 'use_unsafe_shell': True, 'executable': '/bin/bash'},
]


def run(mode: str, commands: list[dict[str, Any]]) -> tuple[list[Any], int]:
    done = subprocess.run([sys.executable, '-c', SCRIPT, str(ROOT), mode, json.dumps(commands)], text=True, timeout=60,
                          capture_output=True, env={**os.environ, 'LC_ALL': 'C.UTF-8'})
    assert done.returncode == 0 and not done.stderr, done.stderr
    outcomes, copies = json.loads(done.stdout)
    return outcomes, copies


def test_commands_end_as_they_do_without_it() -> None:
    expected, copies = run('core', COMMANDS)
    assert copies
    found, copies = run('light', COMMANDS)
    assert found == expected and copies == 0


def test_a_umask_is_still_set() -> None:
    asked = [{'args': 'umask', 'use_unsafe_shell': True, 'umask': 0o27}]
    found, copies = run('light', asked)
    assert found == run('core', asked)[0] and found[0][1].strip() == '0027' and copies == 1


#: Lets a command exit between the two questions of `run_command` at the end of its output.
EXITS_BETWEEN = """
import os, subprocess
poll = subprocess.Popen.poll

def poll_late(self):
    if not hasattr(self, 'asked'):
        self.asked = True
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return None
    return poll(self)

subprocess.Popen.poll = poll_late
"""


@pytest.mark.parametrize('mode', ['core', 'light'])
@pytest.mark.parametrize(('command', 'seconds'), [('echo a', 1.0), ('exec >&- 2>&-; sleep 0.2', 1.0),
                                                   ('sleep 3 & echo a', 2.0)])
def test_a_command_that_exits_between_two_questions_is_not_waited_for(
        command: str, seconds: float, mode: str, tmp_path: pathlib.Path) -> None:
    script = EXITS_BETWEEN + SCRIPT.replace('outcomes.append(module.run', 'began = time.monotonic(); outcomes.append('
                                            'module.run') + 'print(time.monotonic() - began)'
    asked = json.dumps([{'args': command, 'use_unsafe_shell': True}])
    done = subprocess.run([sys.executable, '-c', 'import time' + script, str(ROOT), mode, asked],
                          capture_output=True, text=True, timeout=60)
    outcomes, took = done.stdout.splitlines()
    assert json.loads(outcomes)[0] == [[0, 'a\n' if 'echo' in command else '', '']], done.stderr
    # A pipe that somebody else has open is waited for as long as under core.
    expected = seconds if mode == 'core' or seconds > 1 else 0
    assert expected < float(took) < expected + 0.9


@pytest.mark.parametrize('mode', ['core', 'light'])
@pytest.mark.parametrize('command', ['sleep 1.2', 'echo a; sleep 1.2; echo b'])
def test_a_command_that_is_silent_for_more_than_a_second_takes_no_longer_than_it_takes(command: str, mode: str) -> None:
    script = SCRIPT.replace('outcomes.append(module.run', 'began = time.monotonic(); outcomes.append(module.run')
    asked = json.dumps([{'args': command, 'use_unsafe_shell': True}])
    took = []
    for _ in range(3):  # core's own race, in the middle of which a command may exit, costs a second
        done = subprocess.run([sys.executable, '-c', 'import time' + script + 'print(time.monotonic() - began)',
                               str(ROOT), mode, asked], capture_output=True, text=True, timeout=60)
        took.append(float(done.stdout.splitlines()[1]))
        if took[-1] < 2:
            break
    assert 1.2 < took[-1] < 2


def test_who_asks_until_a_command_has_ended_is_told() -> None:
    script = SCRIPT.replace('module.fail_json = fail', """module.fail_json = fail
def follow(process):
    time.sleep(0.3)
    while process.poll() is None:
        time.sleep(0.01)
""").replace('run_command(arguments, **command)', 'run_command(arguments, before_communicate_callback=follow)')
    asked = json.dumps([{'args': ['sh', '-c', 'exec >&- 2>&-; sleep 0.6']}])
    done = subprocess.run([sys.executable, '-c', 'import time' + script, str(ROOT), 'light', asked],
                          capture_output=True, text=True, timeout=20)
    assert json.loads(done.stdout)[0] == [[0, '', '']], done.stderr


def test_functions_of_others_are_called() -> None:
    script = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from ansible_mitogen_svc.target import light_commands
light_commands.install()

class AnsibleModule:
    def run_command(self, umask=None):
        def preexec():
            os.write(1, b'called')
        subprocess.Popen(['true'], preexec_fn=preexec).wait()

AnsibleModule().run_command()
def preexec():
    os.write(1, b' too')
subprocess.Popen(['true'], preexec_fn=preexec).wait()
"""
    done = subprocess.run([sys.executable, '-c', script, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.stdout == 'called too' and not done.stderr


def test_other_programs_are_started_as_ever() -> None:
    script = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from ansible_mitogen_svc.target import light_commands
before = subprocess._USE_POSIX_SPAWN
light_commands.install()
assert subprocess.run(['echo', 'a'], stdout=subprocess.PIPE).stdout == b'a\\n'
try:
    subprocess.Popen(['/there/is/no/such/program'])
except FileNotFoundError as error:
    assert error.filename == '/there/is/no/such/program'
assert subprocess._USE_POSIX_SPAWN == before
"""
    done = subprocess.run([sys.executable, '-c', script, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize('function', [None, len, lambda: None, print])
def test_only_cores_function_does_nothing(function: object) -> None:
    from ansible_mitogen_svc.target import light_commands

    assert not light_commands.does_nothing(function)
