# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The other programs of ansible-core: they say the same under ours, and no verbosity shows a secret."""
from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rig.hosts import Host, HostPool
from rig.playbook import CORE, OURS, PlaybookRun, Runner, Setting
from rig.targets import inventory

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope='module')
def host(host_pool: HostPool) -> Iterator[Host]:
    with host_pool.host() as host:
        yield host


@pytest.fixture
def both(runner: Runner, host: Host) -> Callable[..., tuple[str, str]]:
    """Runs a program under core's strategy and ours; gives what it printed, both outputs, without what varies."""
    def run(name: str, *arguments: str, **keywords: Any) -> tuple[str, str]:
        def of(setting: Setting) -> str:
            done = runner.program(name, inventory(host, host), setting, arguments, **keywords)
            # Core evaluates the name of its temporary directory, in which chance may put `is` or `or` behind a number.
            varies = ('WARNING]', '<unknown>:1: SyntaxWarning: invalid decimal literal')
            stderr = ''.join(line for line in done.stderr.splitlines(True) if not any(each in line for each in varies))
            return f'{done.returncode}\n{_without_what_varies(done.stdout)}\n{stderr}'
        return of(CORE), of(OURS)
    return run


def _without_what_varies(output: str) -> str:
    output = re.sub(r'"(start|end|delta|before|after)": ".*?"', r'"\1"', output)
    return re.sub(r'svc-run-\w+/(core|svc)-\w+', 'run', output)


def test_an_ad_hoc_command_says_the_same(both: Callable[..., tuple[str, str]]) -> None:
    core, ours = both('ansible', 'alpha,beta', '--forks', '1', '-m', 'command', '-a', 'id -un')
    assert core == ours and 'ops' in ours


def test_ad_hoc_modules_options_and_failures_say_the_same(both: Callable[..., tuple[str, str]]) -> None:
    for arguments in (
            ('beta', '-b', '--become-user', 'app', '-m', 'copy', '-a', 'content=x dest=/tmp/x', '--diff', '--check'),
            ('beta', '-m', 'file', '-a', 'path=/root/x state=directory', '-o'),
            ('alpha', '-m', 'ansible.builtin.ping', '-e', 'ansible_port=1'),
            ('alpha', '-m', 'shell', '-a', 'echo $WORD; exit 3', '-P', '1', '-B', '20')):
        core, ours = both('ansible', *arguments, environment={'ANSIBLE_PIPELINING': 'false'})
        drop = r'"(ansible_job_id|results_file)": ".*?"|ansible_async\S+|j?\d{8,}\.\d+'
        assert re.sub(drop, '', core) == re.sub(drop, '', ours)


def test_lines_typed_at_the_console_say_the_same(both: Callable[..., tuple[str, str]]) -> None:
    typed = 'cd beta\nid -un\nbecome yes\nid -un\n!echo raw\nping data=x\nnosuchmodule\nexit\n'
    core, ours = both('ansible-console', 'all', '--forks', '1', stdin=typed)
    assert core == ours and 'root' in ours and 'ops' in ours


def test_a_playbook_is_pulled_and_run_as_under_core(both: Callable[..., tuple[str, str]],
                                                    tmp_path: pathlib.Path) -> None:
    (tmp_path / 'local.yml').write_text(json.dumps([{
        'hosts': 'localhost', 'gather_facts': False,
        'tasks': [{'name': 'pulled', 'command': 'echo pulled'}, {'debug': {'msg': '{{ inventory_hostname }}'}}]}]))
    author = ('-c', 'user.name=rig', '-c', 'user.email=rig@localhost')
    for command in (('init', '-q', '-b', 'main'), ('add', '.'), (*author, 'commit', '-q', '-m', 'first')):
        subprocess.run(['git', *command], cwd=tmp_path, check=True, timeout=60)
    core, ours = both('ansible-pull', '-U', f'file://{tmp_path}', '-C', 'main', '-d', '{run}/checkout', 'local.yml')
    without_time = re.compile(r'Starting Ansible Pull at .*')
    assert without_time.sub('', core) == without_time.sub('', ours) and 'pulled' in ours


def test_passwords_are_asked_for_and_used_as_under_core(runner: Runner, host: Host) -> None:
    def of(setting: Setting) -> str:
        asked = {b'SSH password: ': b'deploy-secret', b'BECOME password[defaults to SSH password]: ': b''}
        arguments = ('gamma', '-k', '-K', '-b', '-e', 'ansible_ssh_private_key_file=/nowhere', '-a', 'id -un')
        return _typing(asked, *runner.command('ansible', inventory(host, host), setting, arguments))
    core, ours = of(CORE), of(OURS)
    assert core == ours and 'root' in ours


def _typing(answers: dict[bytes, bytes], command: list[str], place: pathlib.Path, environment: dict[str, str]) -> str:
    """Run a command with a terminal of its own, where each question gets its answer; what it printed."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(place)
        os.execvpe(command[0], command, environment)
    said, waiting = b'', dict(answers)
    try:
        while part := os.read(terminal, 65536):
            said += part
            for question in [each for each in waiting if each in said]:
                os.write(terminal, waiting.pop(question) + b'\n')
    except OSError:
        pass  # what reading from a terminal gives when its last user has ended
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 and not waiting, said.decode()
    return ''.join(line for line in said.decode().splitlines(True) if 'WARNING' not in line)


SECRETS = ('argument', 'file', 'environment', 'module', 'loop', 'failure')
PLAYBOOK = """
- hosts: gamma
  gather_facts: false
  vars: {ansible_become_password: deploy-secret, ansible_password: deploy-secret}
  tasks:
    - {name: an argument, command: "echo {{ argument }}", no_log: true}
    - {name: a file, copy: {content: "{{ file }}", dest: /tmp/secret}, no_log: true, become: true}
    - {name: the environment, shell: test "$WORD", environment: {WORD: "{{ environment_ }}"}, no_log: true}
    - {name: a loop, command: "echo {{ item }}", loop: ["{{ loop }}"], no_log: true, become: true, become_user: app}
    - {name: a failure, command: "sh -c 'exit 3' {{ failure }}", no_log: true, ignore_errors: true}
    - {name: a module's own, user: {name: app, password: "{{ module }}"}, become: true, check_mode: true}
    - {name: asynchronous, command: "echo {{ argument }}", no_log: true, async: 20, poll: 1}
    - {name: "by su, which refuses", command: id -un, become: true, become_method: su, ignore_errors: true}
    - {name: by password, command: id -un, become: true, vars: {ansible_ssh_private_key_file: /nowhere}}
"""


def test_no_verbosity_shows_a_secret(play: Callable[..., PlaybookRun], tmp_path: pathlib.Path) -> None:
    secrets = {name: f'5ecret-of-{name}' for name in SECRETS}
    (tmp_path / 'secrets.json').write_text(json.dumps({name.replace('environment', 'environment_'): value
                                                       for name, value in secrets.items()}))
    run = play(PLAYBOOK, OURS, arguments=['-vvvvvv', '-e', f'@{tmp_path}/secrets.json'])
    assert run.returncode == 0, run.tail()
    shown = run.stdout + run.stderr + json.dumps(run.statistics)
    assert 'RUN ansible.modules.command in zygote' in shown
    # The play itself is what a message about the su quotes; the password stands there.
    lines = [line for line in shown.splitlines() if 'vars: {ansible_become_password' not in line]
    assert not [line[:300] for line in lines if any(each in line for each in (*secrets.values(), 'deploy-secret'))]
