# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""An interpreter that a task replaces is the one that runs the next task, also where the connection itself uses it."""

from __future__ import annotations

import pathlib

import pytest

from tests.integration.workers.conftest import OURS, Lab

pytestmark = pytest.mark.timeout(120)
VERSIONS = pathlib.Path.home() / ".pyenv" / "versions"
PLAY = """
- hosts: many
  gather_facts: false
  vars: {ansible_python_interpreter: %(link)s}
  tasks:
    - {name: before, setup: {gather_subset: [python, "!all", "!min"], filter: ansible_python}}
    - {name: another one, command: ln -sfn %(other)s %(link)s}
    - {name: after, setup: {gather_subset: [python, "!all", "!min"], filter: ansible_python}}
    - {name: a file, copy: {content: x, dest: %(link)s.file}}
"""


def test_a_login_zygote_whose_interpreter_was_replaced_makes_way_for_another_one(lab: Lab) -> None:
    found = [next(iter(sorted(VERSIONS.glob(f"{version}.*/bin/python3"))), None) for version in ("3.11", "3.13")]
    if None in found:
        pytest.skip("there are no two Pythons here")
    link = lab.directory / "python-of-the-host"
    link.symlink_to(str(found[0]))
    run = lab.run(lab.write(PLAY % {"link": link, "other": found[1]}), OURS + "linear", hosts=1)
    assert run.returncode == 0, run.output
    facts = [run.results(task)["h01"]["ansible_facts"]["ansible_python"] for task in ("before", "after")]
    assert [each["version"]["minor"] for each in facts] == [11, 13]
    assert run.results("a file")["h01"]["changed"]
    assert run.statistics["module_runs"]["zygote"] == {"zygote": 5}
