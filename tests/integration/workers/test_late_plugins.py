# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Plugins that a task turns out to use when its action has been made, or runs already; and what is known ahead."""

from __future__ import annotations

import json
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


TALKING = """
from ansible.utils.display import Display
def talks(value):
    print(f"a stray {value}")
    Display().display(f"displayed {value}")
    return value > 1
class FilterModule:
    def filters(self):
        return {"talks": talks}
"""


def test_what_a_condition_says_is_shown_once(every_core: Lab) -> None:
    every_core.write(TALKING, "filter_plugins/talking.py")
    play = every_core.write(HEAD + "    - {name: maybe, command: 'true', when: n | talks}\n")
    core, ours = every_core.both(play, hosts=2, forks=2)
    assert not differences(core.events, ours.events)
    for said in ("a stray 1", "a stray 2", "displayed 1", "displayed 2"):
        assert core.output.count(said) == ours.output.count(said) == 1, ours.output


@where_workers_are_chosen
def test_conditions_of_core_alone_are_looked_at_ahead(every_core: Lab) -> None:
    play = every_core.write(HEAD + "    - {name: maybe, command: 'true', when: n | int > 1}\n")
    run = every_core.run(play, OURS + "linear", hosts=2, forks=2)
    assert run.tasks == {"inline": {"skipped": 1}, "thread": {"remote": 1}}


VARS_PLUGIN = """
from ansible.plugins.vars import BaseVarsPlugin
calls = []
class VarsModule(BaseVarsPlugin):
    def get_vars(self, loader, path, entities):
        super().get_vars(loader, path, entities)
        calls.append(path)
        return {"tool": "of the collection"}
"""


@pytest.mark.parametrize(
    ("safe", "keeps"), [("another.collection", True), ("another.collection", False), ("lab.tools", True)]
)
def test_vars_plugins_of_collections_that_keep_something_are_for_processes(
    every_core: Lab, safe: str, keeps: bool
) -> None:
    plugin = VARS_PLUGIN if keeps else VARS_PLUGIN.replace("calls.append(path)", "pass").replace("calls = []", "")
    every_core.write(plugin, "collections/ansible_collections/lab/tools/plugins/vars/counts.py")
    enabled = {"ANSIBLE_VARS_ENABLED": "host_group_vars,lab.tools.counts", "ANSIBLE_MITOGEN_SVC_SAFE_PLUGINS": safe}
    play = every_core.write(HEAD + "    - {name: shown, debug: {msg: '{{ hostvars.h01.tool }}'}}\n")
    core, ours = every_core.both(play, hosts=2, forks=2, **enabled)
    assert not differences(core.events, ours.events)
    forks = keeps and safe != "lab.tools"
    kinds = {"fork": {"vars:lab.tools.counts": 2}} if forks else {"inline": {"controller_only": 2}}
    assert forced or ours.tasks == kinds


def _brings(path: str, text: str) -> str:
    return f"    - {{copy: {{dest: '{{{{ playbook_dir }}}}/{path}', content: {json.dumps(text)}}}, run_once: true}}\n"


def _filter(name: str, value: str) -> str:
    return f"class FilterModule:\n    def filters(self):\n        return {{'{name}': lambda value: '{value}'}}\n"


def _test(name: str, value: str) -> str:
    return f"class TestModule:\n    def tests(self):\n        return {{'{name}': lambda value: value == '{value}'}}\n"


def _lookup(value: str) -> str:
    head = "from ansible.plugins.lookup import LookupBase\nclass LookupModule(LookupBase):\n"
    return f"{head}    def run(self, terms, variables=None, **options):\n        return ['{value}']\n"


def test_plugins_that_the_run_itself_brings_or_changes_are_the_new_ones(every_core: Lab) -> None:
    """A task's own process finds them under core, where ansible-playbook itself has not looked for any before."""
    asks = "{{ n | %s }} {{ lookup('%s') }} {{ 'two' is %s }}"
    play = every_core.write(
        HEAD
        + f'    - {{name: before, debug: {{msg: "{asks % ("old", "old", "of")}"}}}}\n'
        + _brings("filter_plugins/new.py", _filter("new", "new"))
        + _brings("lookup_plugins/new.py", _lookup("new"))
        + _brings("test_plugins/new.py", _test("fresh", "two"))
        + f'    - {{name: new, debug: {{msg: "{asks % ("new", "new", "fresh")}"}}}}\n'
        + _brings("filter_plugins/old.py", COUNTING.replace("counted", "old"))
        + _brings("lookup_plugins/old.py", _lookup("two"))
        + _brings("test_plugins/of.py", _test("of", "two"))
        + f'    - {{name: changed, debug: {{msg: "{asks % ("old", "old", "of")}"}}}}\n'
        + "    - {name: kept, debug: {msg: '{{ n | old }}'}}\n"
    )
    runs = []
    for strategy in ("linear", OURS + "linear"):
        every_core.write(_filter("old", "one"), "filter_plugins/old.py")
        every_core.write(_lookup("one"), "lookup_plugins/old.py")
        every_core.write(_test("of", "one"), "test_plugins/of.py")
        for kind in ("filter", "lookup", "test"):
            (every_core.directory / f"{kind}_plugins" / "new.py").unlink(missing_ok=True)
        run = every_core.run(play, strategy, hosts=2, forks=2)
        expected = {"before": "one one False", "new": "new new True", "changed": "1 two True", "kept": 1}
        for name, value in expected.items():
            assert {each["msg"] for each in run.results(name).values()} == {value}, run.output
        runs.append(run)
    assert not differences(runs[0].events, runs[1].events)
