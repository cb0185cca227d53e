# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Plugins that a task turns out to use when its action has been made, or runs already."""

from __future__ import annotations

import pytest
from streams import differences

from tests.integration.workers.conftest import Lab

pytestmark = pytest.mark.timeout(300)
HEAD = "- hosts: many\n  gather_facts: false\n  tasks:\n"
SAYS = "lookup('pipe', 'echo warn >&2 && readlink /proc/self/fd/2')"


def test_programs_of_late_lookups_may_write_to_standard_error(every_core: Lab) -> None:
    lines = SAYS.replace("pipe", "lines")
    (every_core.directory / "late.j2").write_text(f"{{{{ {SAYS} }}}} {{{{ {lines} }}}}\n")
    play = every_core.write(
        HEAD
        + "    - {name: file, template: {src: late.j2, dest: '{{ scratch }}/{{ n }}'}}\n"
        + f'    - {{name: condition, command: "true", changed_when: "{SAYS} == \'/dev/null\'"}}\n'
        + "    - {name: item, debug: {msg: '{{ late if item else n }}'}, loop: [0, 1], "
        + f'vars: {{late: "{{{{ {SAYS} }}}}"}}}}\n'
        + "    - {name: read, command: 'cat {{ scratch }}/{{ n }}'}\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    assert core.returncode == ours.returncode == 0, ours.output
    for run in (core, ours):
        assert {each["stdout"] for each in run.results("read").values()} == {"/dev/null /dev/null"}, run.output
        assert {each["changed"] for each in run.results("condition").values()} == {True}, run.output
    assert not differences(*([each for each in run.events if each.get("task") != "file"] for run in (core, ours)))
