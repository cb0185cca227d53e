# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Names of plugins that turn out to be no good when a task runs cost that task, and are told of as by core.

We look at these names before there is a task to fail: when a worker is chosen for it, in the strategy's own thread.
"""

from __future__ import annotations

import pytest
from streams import differences

from tests.integration.workers.conftest import Lab

pytestmark = pytest.mark.timeout(300)
#: Each deprecation in words of its own: before 2.21 core says the same words once, wherever it was.
ROUTING = """
plugin_routing:
  modules:
    gone: {tombstone: {removal_version: 1.0.0, warning_text: it went away}}
    old: {redirect: some.names.new, deprecation: {removal_version: 9.0.0, warning_text: this module ages}}
  become:
    gone: {tombstone: {removal_version: 1.0.0, warning_text: it went away}}
    old: {redirect: ansible.builtin.sudo, deprecation: {removal_version: 9.0.0, warning_text: this become ages}}
  connection:
    gone: {tombstone: {removal_version: 1.0.0, warning_text: it went away}}
    old: {redirect: ansible.builtin.local, deprecation: {removal_version: 9.0.0, warning_text: this connection ages}}
"""
MODULE = """
from ansible.module_utils.basic import AnsibleModule
AnsibleModule({}).exit_json()
"""


def with_collection(lab: Lab) -> None:
    """Puts a collection some.names where it is found: one module, and names that lead elsewhere or nowhere."""
    collection = "collections/ansible_collections/some/names"
    lab.write(ROUTING, f"{collection}/meta/runtime.yml")
    lab.write(MODULE, f"{collection}/plugins/modules/new.py")


def told_of(output: str) -> list[str]:
    """What a run said about deprecated plugins of the collection, each with the line after it: where it saw them."""
    lines = output.splitlines()
    pairs = zip(lines, lines[1:], strict=False)
    return [f"{line} {where}" for line, where in pairs if "some.names" in line and "has been deprecated" in line]


def test_a_removed_plugin_fails_its_task_only(every_core: Lab) -> None:
    with_collection(every_core)
    play = every_core.write(
        "- hosts: many\n  gather_facts: false\n  ignore_errors: true\n  vars: {gone: some.names.gone}\n  tasks:\n"
        "    - {name: action, action: '{{ gone }}'}\n"
        "    - {name: become, ping: , become: true, become_method: '{{ gone }}'}\n"
        "    - {name: connection, ping: , vars: {ansible_connection: '{{ gone }}'}}\n"
        "    - {name: after, ping: }\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    assert differences(core.events, ours.events) == []
    assert ours.returncode == core.returncode == 0
    for task in ("action", "become", "connection"):
        assert "it went away" in ours.results(task, "v2_runner_on_failed")["h01"]["msg"]
    assert ours.results("after").keys() == {"h01", "h02"}


def test_a_deprecated_plugin_is_told_of_where_the_task_names_it(every_core: Lab) -> None:
    """And not a second time, without a place, by who chose a worker for the task."""
    with_collection(every_core)
    play = every_core.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - {name: action, some.names.old: }\n"
        "    - {name: become, ping: , become: true, become_method: some.names.old}\n"
        "    - {name: connection, ping: , vars: {ansible_connection: some.names.old}}\n"
    )
    core, ours = every_core.both(play, hosts=1, ANSIBLE_DEPRECATION_WARNINGS="true")
    assert differences(core.events, ours.events) == []
    assert told_of(ours.output) == told_of(core.output)
    assert len(told_of(core.output)) >= 3


def test_what_is_no_name_at_all_fails_its_task_only(every_core: Lab) -> None:
    play = every_core.write(
        "- hosts: many\n  gather_facts: false\n  ignore_errors: true\n  vars: {names: [a, b], pairs: {a: b}}\n"
        "  tasks:\n"
        "    - {name: connection list, ping: , vars: {ansible_connection: [a]}}\n"
        "    - {name: connection pairs, ping: , vars: {ansible_connection: '{{ pairs }}'}}\n"
        "    - {name: connection names, ping: , vars: {ansible_connection: '{{ names }}'}}\n"
        "    - {name: connection number, ping: , vars: {ansible_connection: 5}}\n"
        "    - {name: connection empty, ping: , vars: {ansible_connection: ''}}\n"
        "    - {name: become list, ping: , become: true, vars: {ansible_become_method: [a]}}\n"
        "    - {name: become keyword, ping: , become: true, become_method: '{{ pairs }}'}\n"
        "    - {name: after, ping: }\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    assert differences(core.events, ours.events) == []
    assert ours.returncode == core.returncode == 0
    assert ours.results("after").keys() == {"h01", "h02"}
