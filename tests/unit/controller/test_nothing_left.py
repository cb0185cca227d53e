# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""An agent leaves nobody behind for process 1, which in many a container waits for no process that it did not start."""

from __future__ import annotations

import ctypes
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from ansible_mitogen_svc.controller.identity import identify, zygote_for
from ansible_mitogen_svc.controller.session import Session
from ansible_mitogen_svc.controller.target import LOGIN, Target, Zygote
from ansible_mitogen_svc.services.bootstrap import zygote_arguments

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def as_process_1() -> Iterator[None]:
    """Be who gets the processes whose parents have exited."""
    libc = ctypes.CDLL(None)
    if not sys.platform.startswith("linux") or libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        pytest.skip("only Linux tells who is left")
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def state(pid: int) -> str:
    """What a process is doing: `Z` once it has exited and was not waited for; empty when it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pid_of(target: Target, zygote: Zygote | None) -> int:
    assert zygote is not None
    header = {"op": "execute", "argv": ["/bin/sh", "-c", "echo $PPID"], "environment": {}}
    return int(target.call(zygote.number, header, [b""], timeout=60).blobs[0])


def test_no_zombie_is_left_by_the_end_of_a_run(
    as_process_1: None, session: Session, connect: Callable[[str], Target]
) -> None:
    target = connect("one")
    another = identify(f"WHO=another exec {sys.executable} {zygote_arguments()}", "another", None, 20.0)
    pids = [pid_of(target, zygote) for zygote in (target.zygote(LOGIN), zygote_for(target, another, "/bin/sh")[0])]
    assert all(state(pid) in "SR" for pid in pids)
    session.close()
    deadline = time.monotonic() + 5
    while any(map(state, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    found = [state(pid) for pid in pids]
    for pid, how in zip(pids, found, strict=True):
        if how == "Z":
            os.waitpid(pid, 0)
    assert found == ["", ""]
