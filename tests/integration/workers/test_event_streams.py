# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The callback events of a run are those of core: nothing lost, added, changed or put in another order for a host."""

from __future__ import annotations

import pathlib

import pytest
from streams import differences

from tests.integration.workers.conftest import OURS, Lab, Run, forced

pytestmark = pytest.mark.timeout(900)
#: Hosts of mixed.yml here: few; test_repeats.py has many, many times.
HOSTS = 4
_of_core: dict[pathlib.Path, Run] = {}


def mixed_under_core(lab: Lab) -> Run:
    """What core makes of mixed.yml over ssh. It takes most of a minute, so each ansible-core does it once."""
    if lab.venv not in _of_core:
        _of_core[lab.venv] = lab.mixed("linear", HOSTS)
    return _of_core[lab.venv]


def check(found: list[str]) -> None:
    assert not found, f"{len(found)} events differ\n" + "\n".join(found[:5])


def test_a_playbook_that_mixes_everything_gives_the_event_stream_of_core(every_core_over_ssh: Lab) -> None:
    core, ours = mixed_under_core(every_core_over_ssh), every_core_over_ssh.mixed(OURS + "linear", HOSTS)
    check(differences(core.events, ours.events))
    assert core.returncode == ours.returncode == 2
    assert forced or set(ours.tasks) == {"inline", "thread", "fork"}
    assert forced or set(ours.tasks["fork"]) == {"lookup:pipe", "timeout"}


def test_modules_in_threads_and_processes_give_the_event_stream_of_core(every_core: Lab) -> None:
    core, ours = every_core.both("modules.yml", "linear", hosts=4, forks=4)
    check(differences(core.events, ours.events))
    assert core.returncode == ours.returncode == 0
    assert forced or ours.tasks["thread"]["remote"] > 20
    # The task with the lookup forks for the odd hosts, and for those that come after the first of them is known.
    assert forced or ours.tasks["fork"]["timeout"] == 4 and 2 <= ours.tasks["fork"]["lookup:pipe"] <= 4


def test_with_worker_processes_only_the_event_stream_is_that_of_core(every_core_over_ssh: Lab) -> None:
    core = mixed_under_core(every_core_over_ssh)
    # A worker process that exits ends the run, as under core.
    processes = {"ANSIBLE_MITOGEN_SVC_TASK_WORKERS": "fork", "TEST_EXIT_IS_AN_ERROR": "yes"}
    ours = every_core_over_ssh.mixed(OURS + "linear", HOSTS, **processes)
    check(differences(core.events, ours.events))
    assert list(ours.tasks) == ["fork"]


def test_with_room_for_fewer_connections_than_hosts_the_event_stream_is_that_of_core(ssh_lab: Lab) -> None:
    core = mixed_under_core(ssh_lab)
    ours = ssh_lab.mixed(OURS + "linear", HOSTS, ANSIBLE_MITOGEN_SVC_CONNECTION_LIMIT="2")
    check(differences(core.events, ours.events))
    assert ours.statistics["connections"]["closed for another"] > 2


def test_check_mode_and_diff_mode_give_the_event_stream_of_core(lab: Lab) -> None:
    core, ours = lab.both("modules.yml", "linear", "--check", "--diff", hosts=2, forks=2)
    check(differences(core.events, ours.events))


def test_starting_at_a_task_gives_the_event_stream_of_core(ssh_lab: Lab) -> None:
    core, ours = (
        ssh_lab.mixed(strategy, HOSTS, arguments=["--start-at-task", "delegated to here"])
        for strategy in ("linear", OURS + "linear")
    )
    check(differences(core.events, ours.events))
    begun = [event["task"] for event in ours.events if event["event"] == "v2_playbook_on_task_start"]
    assert begun[0] == "delegated to here" and len(begun) > 10


def test_step_mode_asks_the_same_questions_and_gives_the_event_stream_of_core(lab: Lab) -> None:
    play = lab.write("- hosts: many\n  gather_facts: false\n  tasks:\n" + "    - debug: {msg: '{{ n }}'}\n" * 4)
    core, ours = lab.both(play, "linear", "--step", hosts=2, forks=2, stdin="y\nn\nc\n")
    check(differences(core.events, ours.events))
    assert ours.output.count("Perform task") == core.output.count("Perform task") > 3


def test_a_loop_of_a_thousand_items_loses_none(lab: Lab) -> None:
    play = lab.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - {name: long, debug: {msg: '{{ item }}'}, loop: '{{ range(1000) | list }}', register: all}\n"
        "    - {name: count, debug: {msg: '{{ all.results | length }}'}}\n"
    )
    run = lab.run(play, OURS + "linear", hosts=2, forks=2)
    items = [each["result"]["item"] for each in run.events if each["event"] == "v2_runner_item_on_ok"]
    assert sorted(items) == sorted(2 * list(range(1000)))
    assert {result["msg"] for result in run.results("count").values()} == {1000}


def test_item_callbacks_of_all_kinds_of_workers_come_from_one_thread(lab: Lab) -> None:
    play = lab.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - {debug: {msg: '{{ item }}'}, loop: [1, 2]}\n"
        "    - {command: 'echo {{ item }}', loop: [1, 2]}\n"
        "    - {command: 'echo {{ item }}', loop: [1, 2], timeout: 60}\n"
    )
    run = lab.run(play, OURS + "linear", hosts=2, forks=2)
    items = [each for each in run.events if "_item_" in each["event"]]
    assert len(items) == 12 and (forced or set(run.tasks) == {"inline", "thread", "fork"})
    assert len({each["thread"] for each in items}) == 1


def test_what_the_inventory_warns_of_is_no_part_of_the_result(every_core: Lab) -> None:
    """The controller adds the group, so its warning is the controller's."""
    play = every_core.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - {group_by: {key: 'group of {{ n }}'}, register: added}\n"
        "    - {name: warnings, debug: {msg: '{{ added.warnings | default(\"none\") }}'}}\n"
        "    - {add_host: {name: new, groups: [an odd one]}, register: added}\n"
        "    - {name: further warnings, debug: {msg: '{{ added.warnings | default(\"none\") }}'}}\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    check(differences(core.events, ours.events))
    for run in (core, ours):
        assert run.results("warnings")["h01"]["msg"] == run.results("further warnings")["h01"]["msg"] == "none"
        assert run.output.count("Invalid characters were found in group names") == 1


def test_paths_below_the_home_directory_are_expanded_as_by_core(ssh_lab: Lab) -> None:
    """Core refuses what leads out of it, and joins as Python does."""
    play = ssh_lab.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - {copy: {content: '', dest: '~/../svc-no-such-directory/x'}, ignore_errors: true}\n"
        "    - {copy: {content: '', dest: '~//svc-no-such-directory/x'}, ignore_errors: true}\n"
        "    - {fetch: {src: '~/./svc-no-such-file', dest: '{{ scratch }}'}, ignore_errors: true}\n"
    )
    core, ours = ssh_lab.both(play, hosts=1)
    check(differences(core.events, ours.events))
    assert "containing '..'" in ours.output and "directory /svc-no-such-directory does not exist" in ours.output


def test_a_become_command_that_ends_by_itself_gives_what_it_gives_under_core(every_core: Lab) -> None:
    """Core's local connection has an exception of its own for it; what was said is not the result of a module."""
    ends = "become: true, become_user: nobody, become_exe: 'echo out; echo err >&2; exit 3; :'"
    play = every_core.write(
        "- hosts: many\n  gather_facts: false\n  ignore_errors: true\n  tasks:\n"
        f"    - {{name: module, command: id, {ends}}}\n"
        f"    - {{name: files, copy: {{content: '', dest: '{{{{ scratch }}}}/never'}}, {ends}}}\n"
        f"    - {{name: unasked, command: id, {ends}, vars: {{ansible_become_password: secret}}}}\n"
    )
    core, ours = every_core.both(play, hosts=1)
    check(differences(core.events, ours.events))
    assert "Premature end of stream waiting for become success.\\n>>> Standard Output\\nout" in ours.output
    assert "waiting for become success or become password prompt." in ours.output


def test_skipped_items_have_the_conditions_of_their_blocks_as_often_as_under_core(every_core: Lab) -> None:
    play = every_core.write(
        "- hosts: many\n  gather_facts: false\n  tasks:\n"
        "    - when: [n > 0, true]\n"
        "      environment: {A: a}\n"
        "      tags: [outer]\n"
        "      block:\n"
        "        - {debug: {msg: '{{ item }}'}, loop: [1, 2], when: item == n, tags: [inner]}\n"
        "        - {command: echo, loop: [1, 2], when: n == 1, environment: {B: b}, register: echoed}\n"
        "        - {debug: {msg: '{{ missing }}'}, loop: [1, 2], when: missing, ignore_errors: true}\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    check(differences(core.events, ours.events))
    assert core.results("debug", "v2_runner_item_on_skipped").keys() == {"h01", "h02"}


def test_a_variable_that_a_shell_does_not_know_as_one_is_not_set_as_under_core(every_core_over_ssh: Lab) -> None:
    """A Python would take `http-proxy` for a variable's name like any other; core's shell command ends there."""
    play = every_core_over_ssh.write(
        "- hosts: many\n  gather_facts: false\n  ignore_errors: true\n  tasks:\n"
        "    - {name: dash, command: echo, environment: {http-proxy: none}}\n"
        "    - {name: space, ping: , environment: {A B: none}}\n"
        "    - {name: nothing, ping: , environment: {'': none}}\n"
        "    - {name: good, command: 'sh -c \"echo $_A1\"', environment: {_A1: there}}\n"
    )
    core, ours = every_core_over_ssh.both(play, hosts=1)
    check(differences(core.events, ours.events))
    assert ours.results("dash", "v2_runner_on_failed")["h01"]["rc"] == 127
    assert ours.results("good", "v2_runner_on_ok")["h01"]["stdout"] == "there"
