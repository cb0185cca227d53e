# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What dies in the middle of a task is named, the next task works again, and nothing is left on either side.

Each test has a pristine container and a playbook that waits in ``sleep 100`` until the test has killed something.
"""
from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from rig.hosts import Host
from rig.playbook import OURS, LivePlaybook, PlaybookRun, Runner
from rig.targets import inventory

pytestmark = [pytest.mark.containers, pytest.mark.timeout(240)]

OUR_PROCESSES = re.compile(r'svc-\w+')
SLEEPER = """
- hosts: {host}
  gather_facts: false
  become: {become}
  tasks:
    - {{name: before, ping: }}
    - {{name: a directory that goes with the task, copy: {{content: x, dest: /var/opt/x}}, become: true}}
    - name: sleeper
      command: sleep 100
      ignore_errors: true
      ignore_unreachable: true
    - {{name: after, ping: }}
    - {{name: again, command: id -un}}
"""
# what may stay on a target: the module store, and directories that core makes and leaves as well
KEPT = re.compile(r'/(root|home/\w+)/(\.cache(/ansible_mitogen_svc(/(?!jobs/).*)?)?|\.ansible(/tmp|_async)?)$'
                  r'|/run/(utmp|sudo.*|lock.*|motd.*|systemd.*)$|/home/\w+/\.sudo_as_admin_successful$'
                  r'|/(root|home/\w+)/\.cache/ansible_mitogen_svc/jobs$')


@contextlib.contextmanager
def sleeping(runner: Runner, host: Host, tmp_path: pathlib.Path, login: str = 'alpha',
             become: bool = False) -> Iterator[LivePlaybook]:
    """The playbook, in the middle of its sleep."""
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(SLEEPER.format(host=login, become=str(become).lower()))
    with runner.live(playbook, inventory(host, host), OURS) as live:
        until(lambda: any(process.command == 'sleep 100' for process in host.processes()), live, 'the sleep',
              seconds=80)
        yield live


def until(condition: Callable[[], bool], live: LivePlaybook | None = None, what: str = '', seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or (live is not None and live.process.poll() is not None):
            raise AssertionError(f'not in time: {what}; {live.finish(1).tail() if live else ""}')
        time.sleep(0.1)


def assert_recovered(run: PlaybookRun, died: str) -> None:
    (sleeper,) = run.of_task('sleeper')
    assert sleeper['event'] in ('failed', 'unreachable'), run.tail()
    text = ' '.join(str(sleeper['result'].get(name, '')) for name in ('msg', 'module_stderr'))
    assert re.search(died, text), text
    for task in ('after', 'again'):
        assert [record['event'] for record in run.of_task(task)] == ['ok'], run.tail()
    assert run.returncode == 0, run.tail()
    assert run.elapsed < 95, f'the sleep was waited for: {run.elapsed} s'


@pytest.mark.parametrize('become', [False, True], ids=['as the login user', 'with become'])
@pytest.mark.parametrize(('comm', 'died'), [('svc-agent', 'agent'), ('svc-zygote', 'zygote|worker process'),
                                            ('svc-job', 'killed by signal 9')])
def test_a_killed_process_on_the_target_is_named_and_the_next_task_works(
        comm: str, died: str, become: bool, runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    with sleeping(runner, root_host, tmp_path, 'beta', become) as live:
        assert root_host.kill(comm) > 0, root_host.processes()
        assert_recovered(live.finish(90), died)
    # what a killed module had started outlives it, as under core
    assert_target_is_clean(root_host, but='sleep ' if comm == 'svc-job' else None)


@pytest.mark.parametrize('which', ['ssh', 'ssh master'])
def test_a_killed_ssh_process_is_named_and_the_next_task_works(
        which: str, runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    with sleeping(runner, root_host, tmp_path) as live:
        if which == 'ssh':
            clients = [process.pid for process in live.processes() if process.command.startswith('ssh ')]
        else:
            clients = masters(live)
        assert clients
        for pid in clients:
            os.kill(pid, signal.SIGKILL)
        assert_recovered(live.finish(90), r'ssh|agent')
    assert_target_is_clean(root_host)


RETRIED = """
- hosts: beta
  gather_facts: false
  become: true
  vars: {ansible_ssh_retries: 2}
  tasks:
    - {name: no files, shell: "test -e /tmp/one || { touch /tmp/one; pkill -9 -f '^sshd: ops@'; sleep 60; }"}
    - {name: over a terminal, script: end.sh}
    - {name: the program, copy: {src: end.sh, dest: /tmp/end.sh, mode: "0755"}}
    - {name: again, file: {path: /tmp/two, state: absent}}
    - {name: in a module, copy: {content: x, dest: /tmp/x, validate: /tmp/end.sh %s}, ignore_unreachable: true}
    - {name: after, ping: }
"""
EVENTS = {'no files': ['ok'], 'over a terminal': ['ok'], 'in a module': ['unreachable'], 'after': ['ok']}


def test_a_lost_connection_is_tried_again_unless_files_travel_with_a_module(
        runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'playbook.yml').write_text(RETRIED)
    (tmp_path / 'end.sh').write_text(
        "#!/bin/sh\ntest -e /tmp/two || { touch /tmp/two; pkill -9 -f '^sshd: ops@'; sleep 60; }\n")
    run = runner.run(tmp_path / 'playbook.yml', inventory(root_host, root_host), OURS)
    assert {name: [record['event'] for record in run.of_task(name)] for name in EVENTS} == EVENTS, run.tail()
    assert 'was lost' in run.of_task('in a module')[0]['result']['msg']


def masters(live: LivePlaybook) -> list[int]:
    """ssh's background processes of ControlPersist that belong to a run."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            command = path.read_bytes()
            if b'[mux]' in command and str(live.home).encode() in command:
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize('become', [False, True], ids=['as the login user', 'with become'])
@pytest.mark.parametrize('how', ['SIGINT', 'SIGTERM', 'SIGKILL', 'to its end'])
def test_a_run_leaves_nothing_behind(how: str, become: bool, runner: Runner, root_host: Host,
                                     tmp_path: pathlib.Path) -> None:
    before = root_host.files()
    with sleeping(runner, root_host, tmp_path, 'beta', become) as live:
        if how == 'SIGINT':
            os.killpg(live.process.pid, signal.SIGINT)
        elif how == 'to its end':
            root_host.shell('pkill -x sleep')
        else:
            os.kill(live.process.pid, signal.Signals[how])
        until(lambda: live.process.poll() is not None, None, f'end after {how}', seconds=20)
        until(lambda: not live.processes(), None, f'{live.processes()} stay here', seconds=10)
        run = live.finish(1)
    assert_target_is_clean(root_host)
    left = {path for path in root_host.files() - before if not KEPT.match(path)}
    assert not left
    if how != 'SIGKILL':
        # a killed controller cannot tidy up after itself; core neither
        # the directory of multiprocessing's listener is core's, which leaves it when a signal ends it
        assert not [path for path in run.leftovers if not path.startswith('tmp/pymp-')], run.tail()


def assert_target_is_clean(host: Host, but: str | None = None) -> None:
    def left() -> list[str]:
        return [f'{process.comm}: {process.command}' for process in host.processes()
                if OUR_PROCESSES.match(process.comm) or process.command.startswith('sleep 100')
                and not process.command.startswith(but or 'nothing')]
    deadline = time.monotonic() + 10
    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left()
