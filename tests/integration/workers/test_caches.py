# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What is remembered between tasks is never what another task, item or host should have had.

The reference is core, each of whose tasks is worked out anew in a process of its own.
"""

from __future__ import annotations

import hashlib
import pathlib

import pytest
from streams import differences

from tests.integration.workers.conftest import OURS, Lab, forced, where_workers_are_chosen

pytestmark = pytest.mark.timeout(300)
PLAYS = pathlib.Path(__file__).with_name("plays")
SAFE = {"ANSIBLE_MITOGEN_SVC_SAFE_PLUGINS": "ansible.legacy", "ANSIBLE_ACTION_PLUGINS": str(PLAYS / "action_plugins")}
#: The task that changes the environment of its process, which is ours for good and for core that task's only.
CHANGES_ENVIRONMENT = "controller"


@pytest.mark.parametrize("forks", [1, 3])
def test_whatever_changes_between_tasks_is_seen_as_under_core(every_core: Lab, forks: int) -> None:
    core, ours = every_core.both("changes.yml", hosts=3, forks=forks, **SAFE)
    assert len(core.results("after the role")) == 3 and core.returncode == 0, core.output
    assert forced or ours.tasks.get("fork", {}) == {}, "the memory was not in use"
    left, right = ([each for each in run.events if each.get("task") != "controller"] for run in (core, ours))
    assert not differences(left, right)


def test_variables_of_hosts_that_take_no_part_are_read_anew_by_each_task(every_core: Lab) -> None:
    """Core's worker reads the files of such a host, and forgets them when it ends."""
    files = {name: every_core.directory / name / "h02.yml" for name in ("host_vars", "of_playbook/host_vars")}
    play = every_core.write(
        "- hosts: h01\n  gather_facts: false\n  tasks:\n"
        + "".join(
            f"    - {{name: in memory {number}, debug: {{msg: \"{{{{ hostvars.h02.x | default('none') }}}}\"}},"
            f" when: hostvars.h02.y | default('') != 'skip'}}\n"
            f"    - {{name: on a target {number}, command: \"echo {{{{ hostvars.h02.x | default('none') }}}}\"}}\n"
            f"    - {{copy: {{dest: {path}, content: \"x{{{{':'}}}} {number}\\n\"}}}}\n"
            for number, path in enumerate([*files.values(), *files.values()])
        ).replace("copy: {dest", "copy: {mode: 'u=rw', dest"),
        "of_playbook/playbook.yml",
    )
    for path in files.values():
        path.parent.mkdir(parents=True)
    runs = []
    for strategy in ("linear", OURS + "linear"):
        runs.append(every_core.run(play, strategy, hosts=2, forks=2))
        for path in files.values():
            path.unlink()
    core, ours = runs
    assert [core.results(f"in memory {number}")["h01"]["msg"] for number in range(4)] == ["none", 0, 1, 1]
    assert not differences(core.events, ours.events)


@where_workers_are_chosen
def test_options_follow_the_environment_of_the_controller(lab: Lab) -> None:
    play = lab.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - {name: before, sees: {}}\n"
        "    - {name: change, sees: {environment: {ANSIBLE_ASYNC_DIR: /of/controller}}}\n"
        "    - {name: after, sees: {}}\n"
    )
    run = lab.run(play, OURS + "linear", hosts=1, forks=1, **SAFE)
    before, after = (run.results(name)["h01"]["shell"]["async_dir"] for name in ("before", "after"))
    assert before != after == "'/of/controller'"


def test_passwords_are_not_remembered(lab: Lab) -> None:
    play = lab.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - {name: with, sees: {}, become: true, vars: {ansible_become_password: 'sesame {{ n }}'}}\n"
        "    - {name: without, sees: {}, become: true}\n"
    )
    run = lab.run(play, OURS + "linear", hosts=2, forks=2, **SAFE)
    assert [run.results("with")[host]["become"]["become_pass"] for host in ("h01", "h02")] == [
        hashlib.sha256(password).hexdigest() for password in (b"sesame 1", b"sesame 2")
    ]
    assert {each["become"]["become_pass"] for each in run.results("without").values()} == {"None"}
