# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Plugins that a task turns out to use when its action has been made, or runs already."""

from __future__ import annotations

import time

import pytest
from streams import differences

from tests.integration.workers.conftest import OURS, Lab, forced, where_workers_are_chosen

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


COUNTING = """
calls = []
def counted(value):
    calls.append(value)
    return len(calls)
class FilterModule:
    def filters(self):
        return {"counted": counted}
"""


def test_what_a_filter_keeps_is_gone_when_only_the_action_asks_for_it(every_core: Lab) -> None:
    """`var` and `that` are templated by debug and assert themselves."""
    every_core.write(COUNTING, "filter_plugins/counting.py")
    play = every_core.write(
        HEAD
        + "    - {name: shown, debug: {var: n | counted}}\n"
        + "    - {name: asserted, assert: {that: [(n | counted) == 1, (n | counted) == 2]}}\n"
        + "    - {name: refused, assert: {that: (n | counted) == 2}, ignore_errors: true}\n"
        + "    - {name: again, debug: {var: n | counted}}\n"
        + "    - {name: items, debug: {var: item | counted}, loop: [5, 6]}\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    assert not differences(core.events, ours.events)
    assert {each["n | counted"] for each in ours.results("again").values()} == {1}
    assert forced or ours.tasks == {"fork": {"filter:counted": 10}}


def test_what_an_abandoned_action_has_said_is_told_once(every_core: Lab) -> None:
    play = every_core.write(
        HEAD
        + "    - {name: late, debug: {var: asks}, when: item > 0, loop: [0, 1, 2],"
        + " vars: {asks: \"{{ lookup('pipe', 'echo here') }}\"}}\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    assert core.returncode == ours.returncode == 0, ours.output
    assert not differences(core.events, ours.events)


@where_workers_are_chosen
def test_conditions_that_wait_for_a_program_wait_at_once_for_all_hosts(lab: Lab) -> None:
    play = lab.write(HEAD + "    - {name: waits, assert: {that: \"lookup('pipe', 'sleep 2; echo 1') == '1'\"}}\n")
    started = time.monotonic()
    run = lab.run(play, OURS + "linear", hosts=8, forks=8)
    assert run.returncode == 0, run.output
    assert run.tasks == {"fork": {"lookup:pipe": 8}}
    assert time.monotonic() - started < 12
