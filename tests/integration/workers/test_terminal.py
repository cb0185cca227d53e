# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A run on a terminal: no program that a task starts on the controller can use it, as under core; forks do not inherit
the lock of what is being written to it."""

from __future__ import annotations

import os
import pathlib
import pty
import subprocess

import pytest

from tests.integration.workers.conftest import OURS, Lab, forced

PLAY = """
- hosts: many
  gather_facts: false
  vars: {question: "(: < /dev/tty) 2> /dev/null && echo terminal || echo none"}
  tasks:
    - {name: raw, raw: "{{ question }}", register: raw}
    - {name: raw as another, raw: "{{ question }}", register: another, become: true, become_user: nobody}
    - {name: module, shell: "{{ question }}", register: module}
    - {name: shown, debug: {msg: "{{ raw.stdout_lines + another.stdout_lines + module.stdout_lines }}"}}
"""


def on_a_terminal(command: list[str], environment: dict[str, str], directory: pathlib.Path) -> str:
    """Run `command` with a terminal of its own, and return what it writes there."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(directory)
        os.execvpe(command[0], command, environment)
    said = b""
    try:
        while part := os.read(terminal, 65536):
            said += part
    except OSError:
        pass  # what reading from a terminal gives when its last user has ended
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize("strategy", ["linear", OURS + "linear"])
def test_programs_of_tasks_have_no_terminal(lab: Lab, strategy: str) -> None:
    if subprocess.run(["sudo", "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("sudo asks for a password here")
    said = on_a_terminal(lab.command(lab.write(PLAY), 1, 1), lab.environment(strategy), lab.directory)
    assert "terminal" not in said and said.count("none") >= 3, said


BESIDE_THREADS = """
- hosts: many
  gather_facts: false
  tasks:
    - {name: in a process, debug: {msg: here}, timeout: 200}
    - {name: in a thread, command: echo there}
    - {name: in a process again, command: echo there, timeout: 200}
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("strategy", ["linear", "free"])
def test_processes_forked_while_a_callback_writes_to_the_terminal_do_not_hang(lab: Lab, strategy: str) -> None:
    """Core forks under the lock that it has every writer take; whatever forks here has to."""
    environment = lab.environment(OURS + strategy, ANSIBLE_CALLBACKS_ENABLED="writes_beside")
    said = on_a_terminal(lab.command(lab.write(BESIDE_THREADS), 5, 5), environment, lab.directory)
    assert said.count("[forked]") == (15 if forced else 10), said.replace("\a", "")
    assert "\a" in said and said.count("ok=3") == 5, said.replace("\a", "")
