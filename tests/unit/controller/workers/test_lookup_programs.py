# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Programs of core's lookups, inside of a task of this process and elsewhere."""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest
from ansible.plugins.lookup import lines, pipe

from ansible_mitogen_svc.controller.compat import lookup_programs
from ansible_mitogen_svc.controller.workers.kinds import WorkerKind
from ansible_mitogen_svc.controller.workers.plugin_policy import PluginTrust, TaskPolicy, policy_of_this_thread

TELL = "cut -d' ' -f5,6 /proc/self/stat; readlink /proc/self/fd/2"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, pipe):
        monkeypatch.setattr(module, "subprocess", subprocess)
    lookup_programs.install()


def in_a_task():
    return policy_of_this_thread(TaskPolicy(WorkerKind.THREAD, PluginTrust(()), lambda name: True))


def started(module, command):
    return module.subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("module", [lines, pipe])
def test_in_a_task_they_have_a_standard_error_and_no_part_in_the_session(module) -> None:
    with in_a_task():
        program = started(module, TELL)
        group, session, error = program.communicate()[0].decode().split()
    assert (int(group), int(session), error) == (program.pid, program.pid, os.devnull)


def test_where_workers_are_not_isolated_they_have_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_programs, "workers_are_isolated", lambda variables: False)
    with in_a_task():
        program = started(pipe, TELL)
        group, session, _error = program.communicate()[0].decode().split()
    assert (int(group), int(session)) == (program.pid, os.getsid(0))


def test_elsewhere_they_are_started_as_ever() -> None:
    group, session, *_error = started(pipe, TELL).communicate()[0].decode().split()
    assert (int(group), int(session)) == (os.getpgrp(), os.getsid(0))


def test_they_end_with_the_run(tmp_path) -> None:
    ended: list[int] = []

    def wait() -> None:
        with in_a_task():
            program = started(pipe, f"touch {tmp_path}/runs; sleep 60 & wait")
            program.communicate()
            ended.append(program.returncode)

    thread = threading.Thread(target=wait)
    thread.start()
    while not (tmp_path / "runs").exists():
        time.sleep(0.01)
    lookup_programs.end_programs()
    thread.join(10)
    assert ended and ended[0] != 0


def test_they_end_with_a_lookup_that_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self, *arguments):
        raise KeyboardInterrupt

    with in_a_task():
        program = started(pipe, "sleep 60 & wait")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(subprocess.Popen, "communicate", interrupted)
            program.communicate()
    assert program.wait(10) != 0
