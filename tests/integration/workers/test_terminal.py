# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A run on a terminal: no program that a task starts on the controller can use it, as under core."""

from __future__ import annotations

import os
import pathlib
import pty
import subprocess

import pytest

from tests.integration.workers.conftest import OURS, Lab

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
