# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Ctrl-C and SIGTERM end a run quickly, whatever it is doing, and leave nothing behind."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
import uuid

import pytest

from tests.integration.workers.conftest import OURS, Lab

pytestmark = pytest.mark.timeout(120)
#: Seconds a run may take to end, on a machine that does other things as well.
LIMIT = 20
MARK = "TEST_RUN_MARK"

TASKS = {
    "threads": "    - {name: now, command: sleep 60}\n",
    "forks": "    - {name: now, command: sleep 60, timeout: 50}\n",
    "both": "    - {name: now, command: \"sleep {{ lookup('pipe', 'echo 60') if n is odd else 60 }}\"}\n",
    "inline": "    - {name: now, debug: {msg: '{{ item }}'}, loop: '{{ range(100000) | list }}'}\n",
    "retries": "    - {name: now, command: 'false', register: r, until: r is success, retries: 100, delay: 5}\n",
    "async": "    - {name: now, command: sleep 60, async: 100, poll: 2}\n",
}


def processes(mark: str) -> list[str]:
    """Command lines of the processes whose environment has `mark`."""
    found = []
    for directory in pathlib.Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if mark.encode() in (directory / "environ").read_bytes():
                    found.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found


def gone(mark: str, jobs_go_on: bool = False) -> bool:
    """Whether no process of the run is left; `jobs_go_on`: apart from those that async tasks started, as under core."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        left = processes(mark)
        if jobs_go_on:
            # The wrapper, the module's file that it runs, and what the module runs.
            job = ("async_wrapper", "AnsiballZ_command.py", "sleep 60")
            left = [each for each in left if not any(part in each for part in job)]
        if not left:
            return True
        time.sleep(0.2)
    return False


def wait_for_tasks(lab: Lab, events: pathlib.Path, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        if events.exists() and '"v2_runner_on_start"' in events.read_text():
            time.sleep(0.7)
            return
        time.sleep(0.05)
    raise AssertionError("no task has started")


def interrupted(lab: Lab, strategy: str, tasks: str, number: int) -> tuple[int, str, float, str]:
    """(return code, output, seconds it took to end, mark) of a run that got a signal."""
    mark = uuid.uuid4().hex
    play = lab.write("- hosts: many\n  gather_facts: false\n  tasks:\n" + tasks)
    scratch = lab.directory / "temporary"
    env = lab.environment(strategy, ANSIBLE_LOCAL_TEMP=str(scratch), **{MARK: mark})
    process = subprocess.Popen(
        lab.command(play, 4, 4),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_tasks(lab, pathlib.Path(env["EVENT_STREAM"]), process)
        started = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT * 2)
        return process.returncode, output, time.monotonic() - started, mark
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("what", TASKS)
def test_ctrl_c_ends_a_run_as_under_core_and_leaves_no_process(lab: Lab, what: str) -> None:
    code, output, seconds, mark = interrupted(lab, OURS + "linear", TASKS[what], signal.SIGINT)
    assert code == 99 and "User interrupted execution" in output, output[-2000:]
    assert "Traceback" not in output
    assert seconds < LIMIT
    assert gone(mark, jobs_go_on=what == "async"), processes(mark)
    assert not list((lab.directory / "temporary").glob("*"))


@pytest.mark.parametrize("what", ["threads", "forks", "inline"])
def test_sigterm_ends_a_run_with_the_status_of_core_and_leaves_no_process(lab: Lab, what: str) -> None:
    code, output, seconds, mark = interrupted(lab, OURS + "linear", TASKS[what], signal.SIGTERM)
    assert code == -signal.SIGTERM, output[-2000:]
    assert "Traceback" not in output
    assert seconds < LIMIT
    assert gone(mark), processes(mark)
    assert not list((lab.directory / "temporary").glob("*"))


def test_ctrl_c_ends_a_run_of_the_free_strategy(lab: Lab) -> None:
    code, output, seconds, mark = interrupted(lab, OURS + "free", TASKS["both"], signal.SIGINT)
    assert code == 99 and seconds < LIMIT
    assert gone(mark), processes(mark)


@pytest.mark.long
@pytest.mark.parametrize("delay", [step / 10 for step in range(1, 40)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_moment_is_a_bad_one_for_a_signal(ssh_lab: Lab, delay: float, number: int) -> None:
    lab, mark = ssh_lab, uuid.uuid4().hex
    env = lab.environment(OURS + "linear", **lab.wants_of_mixed(OURS), **{MARK: mark})
    process = subprocess.Popen(
        lab.command("mixed.yml", 8, 8, scratch=str(lab.directory)),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        time.sleep(delay)
        process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT * 2)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode in (99, -number, 1, 130), output[-2000:]
    assert gone(mark), processes(mark)
