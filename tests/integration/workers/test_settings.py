# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Options of the strategies: where they can be set, and what is said about values that do not parse."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.integration.workers.conftest import OURS, Lab, where_workers_are_chosen

pytestmark = pytest.mark.timeout(120)
PLAY = "- hosts: many\n  gather_facts: false\n  tasks:\n    - {name: first, debug: {msg: 1}}\n"
LINEAR = OURS + "linear"


@where_workers_are_chosen
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("environment", "the environment variable ANSIBLE_MITOGEN_SVC_TASK_WORKERS"),
        ("ini", "[ansible_mitogen_svc] task_workers in "),
        ("variable", "the variable ansible_mitogen_svc_task_workers"),
    ],
)
def test_a_value_that_does_not_parse_is_named_with_its_source_and_a_remedy(lab: Lab, where: str, said: str) -> None:
    environment, arguments = {}, []
    if where == "environment":
        environment["ANSIBLE_MITOGEN_SVC_TASK_WORKERS"] = "threads"
    elif where == "ini":
        (lab.directory / "ansible.cfg").write_text("[ansible_mitogen_svc]\ntask_workers = threads\n")
    else:
        arguments = ["-e", "ansible_mitogen_svc_task_workers=threads"]
    run = lab.run(lab.write(PLAY), LINEAR, *arguments, hosts=1, **environment)
    assert run.returncode == 5
    assert not run.results("first")
    assert "option 'task_workers' cannot be 'threads'" in run.output and said in run.output
    assert "Use one of: auto, fork." in run.output
    assert run.output.count("ERROR") == 1 and "Traceback" not in run.output


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("POOL_SIZE", "many", "Use a value of type int."),
        ("POOL_SIZE", "0", "Use a number from 1 to 1024."),
        ("SAFE_PLUGINS", "community.general, ../x", "Use fully qualified plugin names"),
        ("STATS", "/no/such/directory/file.json", "Create the directory /no/such/directory"),
    ],
)
def test_other_options_are_checked_too(lab: Lab, name: str, value: str, remedy: str) -> None:
    run = lab.run(lab.write(PLAY), LINEAR, hosts=1, **{f"ANSIBLE_MITOGEN_SVC_{name}": value})
    assert run.returncode == 5 and remedy in run.output and f"ANSIBLE_MITOGEN_SVC_{name}" in run.output
    assert not run.results("first")


def test_files_of_modules_stay_where_the_run_asks_for_that(every_core_over_ssh: Lab) -> None:
    lab, remote = every_core_over_ssh, every_core_over_ssh.directory / "remote"
    play = lab.write("- hosts: many\n  gather_facts: false\n  tasks:\n    - {name: kept, ping: null}\n")
    variables = {"ansible_remote_tmp": str(remote)}
    for keep, expected in ("", []), ("yes", ["AnsiballZ_ping.py"]):
        run = lab.run(play, LINEAR, hosts=1, variables=variables, ANSIBLE_KEEP_REMOTE_FILES=keep or "no")
        assert run.results("kept")["h01"]["ping"] == "pong", run.output
        assert [path.name for path in remote.rglob("*.py")] == expected
    assert run.statistics["module_runs"]["core"] == {"files kept on the target": 1}


def test_variables_of_a_play_win_over_the_environment_and_hold_for_that_play(lab: Lab) -> None:
    second = PLAY.replace("  tasks:", "  vars: {ansible_mitogen_svc_task_workers: \"{{ 'fo' ~ 'rk' }}\"}\n  tasks:")
    run = lab.run(lab.write(PLAY + second), LINEAR, hosts=2, ANSIBLE_MITOGEN_SVC_TASK_WORKERS="auto")
    assert run.tasks == {"inline": {"controller_only": 2}, "fork": {"task_workers=fork": 2}}


@where_workers_are_chosen
def test_the_decision_and_its_reason_are_shown_at_vvv(lab: Lab) -> None:
    run = lab.run(lab.write(PLAY), LINEAR, "-vvv", hosts=1)
    assert "<h01> task worker: inline (controller_only)" in run.output
    quiet = lab.run(lab.write(PLAY), LINEAR, "-vv", hosts=1)
    assert "task worker:" not in quiet.output


def test_what_core_would_execute_for_a_module_is_shown_at_vvv_and_no_earlier(lab: Lab) -> None:
    play = lab.write("- hosts: many\n  gather_facts: false\n  tasks: [{ping: }]\n")
    shown = lab.run(play, LINEAR, "-vvv", hosts=1).output
    assert "EXEC /bin/sh -c '" in shown and "RUN ansible.modules.ping in zygote" in shown
    assert "EXEC" not in lab.run(play, LINEAR, "-vv", hosts=1).output


@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned", "debug"])
def test_ansible_doc_shows_each_option_with_its_names(lab: Lab, strategy: str) -> None:
    shown = subprocess.run(
        [lab.venv / "bin" / "ansible-doc", "--json", "-t", "strategy", OURS + strategy],
        env=lab.environment("linear"),
        capture_output=True,
        text=True,
        check=True,
    )
    options = json.loads(shown.stdout)[OURS + strategy]["doc"]["options"]
    assert set(options) >= {"task_workers", "safe_plugins", "stats_path", "pool_size"}
    for name, option in options.items():
        assert option["description"] and option["env"] and option["ini"] and option["vars"], name
