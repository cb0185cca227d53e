# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""free, host_pinned and debug beside linear: core's behaviour, and results under the task they belong to."""

from __future__ import annotations

import re

import pytest
from streams import differences

from tests.integration.workers.conftest import OURS, Lab, forced

pytestmark = pytest.mark.timeout(300)
HEAD = "- hosts: many\n  gather_facts: false\n  tasks:\n"


@pytest.mark.parametrize("strategy", ["free", "host_pinned"])
def test_each_host_sees_the_events_it_sees_under_core(every_core: Lab, strategy: str) -> None:
    core, ours = every_core.both("modules.yml", strategy, hosts=3, forks=3)
    found = differences(core.events, ours.events, lockstep=False)
    assert not found, "\n".join(found[:5])
    assert forced or {"thread", "fork", "inline"} == set(ours.tasks)


def test_hosts_of_a_task_see_each_other_as_they_were_before_it(every_core: Lab) -> None:
    """Core has no result before as many hosts have started as may run at once: they can pass values around.

    On a busy machine one of core's first worker processes may have ended before: what it does is not asserted.
    Hosts look at the last but one before them, which is done long before they start.
    """
    other = "hostvars[ansible_play_hosts[n - 3]]"
    play = every_core.write(
        HEAD
        + "    - {set_fact: {v: '{{ n }}'}}\n"
        + f"    - {{name: passed, set_fact: {{v: '{{{{ {other}.v }}}}'}}}}\n"
        + "    - {command: 'echo {{ n }}', register: r}\n"
        + f"    - {{name: slowly echoed, command: 'echo {{{{ {other}.r.stdout }}}}', register: r}}\n"
        + "    - {name: seen, debug: {msg: '{{ v }} {{ r.stdout }}'}}\n"
    )
    slow = {"ANSIBLE_CALLBACKS_ENABLED": "event_stream,slow_starts"}
    run = every_core.run(play, OURS + "linear", hosts=4, forks=4, **slow)
    seen = {host: result["msg"] for host, result in run.results("seen").items()}
    assert seen == {"h01": "3 3", "h02": "4 4", "h03": "1 1", "h04": "2 2"}, run.output


def test_later_items_and_attempts_see_other_hosts_as_they_were_before_the_task(every_core: Lab) -> None:
    """h01 is done long before h02 comes to its last item, and its results are registered by then."""
    other = "{{ hostvars.h01.r.results | default([]) | length }} {{ hostvars.h01.x.attempts | default(0) }}"
    wait = "sleep {{ 0 if n == 1 else 0.7 }}; echo"
    play = every_core.write(
        HEAD
        + f"    - {{name: items, shell: '{wait} {other}', loop: [1, 2, 3], register: r}}\n"
        + f"    - {{name: attempts, shell: '{wait} {other}', until: n == 1 or x.attempts == 3, retries: 3, delay: 0, "
        + "register: x}\n"
    )
    for run in every_core.both(play, hosts=2, forks=2):
        items = run.results("items", "v2_runner_on_ok")
        assert {each["stdout"] for host in items.values() for each in host["results"]} == {"0 0"}, run.output
        assert run.results("attempts", "v2_runner_on_ok")["h02"]["stdout"] == "3 0", run.output


def test_results_of_the_first_hosts_are_taken_in_when_there_are_more_than_may_run_at_once(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + "    - {name: counted, set_fact: {v: \"{{ ansible_play_hosts | map('extract', hostvars) |"
        + " selectattr('v', 'defined') | length }}\"}}\n"
    )
    run = lab.run(play, OURS + "linear", hosts=6, forks=2)
    facts = {host: int(result["ansible_facts"]["v"]) for host, result in run.results("counted").items()}
    assert facts["h01"] == facts["h02"] == 0, run.output
    assert forced or 0 < facts["h04"] <= facts["h06"] < 6, run.output


@pytest.mark.parametrize("strategy", ["free", "host_pinned"])
def test_output_stands_under_its_own_task(lab: Lab, strategy: str) -> None:
    """The default callback prints a banner whenever a result belongs to another task than the last line did."""
    tasks = "".join(
        f"    - {{name: task {number}, debug: {{msg: 'of task {number} for {{{{ n }}}}'}}, until: true,"
        f" retries: 1, delay: 0}}\n"
        for number in range(8)
    )
    run = lab.run(lab.write(HEAD + tasks), OURS + strategy, hosts=8, forks=8, TEST_SWITCH_INTERVAL="0.0001")
    current, shown = "", 0
    for line in run.output.splitlines():
        if banner := re.match(r"TASK \[task (\d)\]", line):
            current = banner[1]
        if result := re.search(r"of task (\d) for", line):
            assert result[1] == current, run.output
            shown += 1
    assert shown == 64
    assert forced or run.tasks == {"thread": {"waits": 64}}


def test_free_hosts_do_not_wait_for_each_other(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + '    - {name: slow, command: "sleep {{ 4 if n == 1 else 0 }}"}\n'
        + "    - {name: next, command: echo}\n"
        + "    - {name: forked, command: echo, timeout: 30}\n"
    )
    run = lab.run(play, OURS + "free", hosts=3, forks=3)
    order = [(each["host"], each["task"]) for each in run.events if each["event"] == "v2_runner_on_ok"]
    assert order.index(("h03", "forked")) < order.index(("h01", "slow")), order


@pytest.mark.parametrize("strategy", ["free", "host_pinned"])
def test_a_host_that_resets_its_connection_leaves_alone_the_task_of_another_one_on_the_same_machine(
    lab: Lab, strategy: str
) -> None:
    play = lab.write(
        HEAD
        + "    - {name: connected, command: echo}\n"
        + '    - {name: first, command: "sleep {{ 3 if n == 1 else 1 }}"}\n'
        + "    - {meta: reset_connection}\n"
        + "    - {name: after, command: echo}\n"
    )
    run = lab.run(play, OURS + strategy, hosts=3, forks=3)
    assert run.returncode == 0, run.output
    assert len(run.results("first", "v2_runner_on_ok")) == len(run.results("after", "v2_runner_on_ok")) == 3


def test_pinned_hosts_go_to_their_end_before_others_start(lab: Lab) -> None:
    play = lab.write(HEAD + "".join(f"    - {{name: t{number}, command: echo}}\n" for number in range(3)))
    run = lab.run(play, OURS + "host_pinned", hosts=3, forks=1)
    order = [each["host"] for each in run.events if each["event"] == "v2_runner_on_ok"]
    assert order == ["h01"] * 3 + ["h02"] * 3 + ["h03"] * 3


def test_handlers_of_free_hosts_run_once_for_each(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + "    - {name: a, command: echo, notify: h}\n    - {name: b, command: echo, notify: h}\n"
        + "  handlers:\n    - {name: h, command: echo}\n"
    )
    run = lab.run(play, OURS + "free", hosts=4, forks=4)
    assert run.returncode == 0 and set(run.results("h")) == {"h01", "h02", "h03", "h04"}
    assert len([each for each in run.events if each.get("task") == "h" and each["event"] == "v2_runner_on_ok"]) == 4


def test_an_include_in_a_free_play_reaches_each_host(lab: Lab) -> None:
    lab.write("- {name: inner, command: 'echo {{ item }}', loop: [1, 2]}\n", "inner.yml")
    play = lab.write(HEAD + "    - include_tasks: inner.yml\n    - {name: after, debug: {msg: 1}}\n")
    run = lab.run(play, OURS + "free", hosts=4, forks=2)
    assert len(run.results("inner", "v2_runner_on_ok")) == len(run.results("after")) == 4


def test_hosts_that_pause_between_includes_do_so_at_the_same_time(lab: Lab) -> None:
    lab.write("- {name: inner, debug: {msg: 1}}\n", "inner.yml")
    loop = "{include_tasks: inner.yml, loop: [1, 2], loop_control: {pause: 5}}"
    play = lab.write(
        HEAD + "    - {name: begin, command: date +%s}\n    - " + loop + "\n    - {name: end, command: date +%s}\n"
    )
    run = lab.run(play, OURS + "linear", hosts=4, forks=4)
    begin, end = (
        min(int(each["stdout"]) for each in run.results(name, "v2_runner_on_ok").values()) for name in ("begin", "end")
    )
    assert len(run.results("inner")) == 4 and 5 <= end - begin < 4 * 5, run.output


def test_a_worker_process_that_dies_ends_the_run_instead_of_hanging_it(lab: Lab) -> None:
    """Under core's free strategy such a run never ends."""
    play = lab.write(HEAD + "    - {name: dies, debug: {msg: \"{{ lookup('pipe', 'kill -9 $PPID') }}\"}}\n")
    for strategy in ("linear", "free"):
        run = lab.run(play, OURS + strategy, hosts=2, forks=2, timeout=60)
        assert run.returncode != 0 and "A worker was found in a dead state" in run.output, run.output


@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned", "debug"])
def test_callbacks_know_the_strategy_by_its_name_in_core(every_core: Lab, strategy: str) -> None:
    """Some look when the play begins, before ours is there: ansible.posix.json has its output in another form then."""
    play = every_core.write(
        HEAD
        + "    - {name: first, debug: {msg: one}, changed_when: true, notify: handled}\n"
        + "  handlers: [{name: handled, debug: {msg: two}}]\n"
        + HEAD
        + "    - {name: second, debug: {msg: three}}\n"
    )
    enabled = {"ANSIBLE_CALLBACKS_ENABLED": "event_stream,notes_strategy"}
    core, ours = every_core.both(play, strategy, hosts=1, forks=1, **enabled)
    noted = [re.findall(r"noted: .*", run.output) for run in (core, ours)]
    assert len(noted[0]) == 3, core.output
    assert noted[1] == noted[0], ours.output
