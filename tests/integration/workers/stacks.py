# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Where everything of a run stands that does not end: Python stacks of all its processes and threads, as text.

Called by the lab when a run has used up its time, in the pytest process. Processes of the run's own environment write
their stacks on SIGUSR2 (site/sitecustomize.py); those on targets, which have another environment, are looked at with
py-spy where it is installed, and otherwise only named.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from rig.loopback_sshd import descendants

#: Seconds in which a process writes its stacks.
WRITING = 1.0


def of_run(pid: int, written: pathlib.Path, on_targets: Iterable[int] = ()) -> str:
    """Stacks of the process `pid` and everything it has started; `written`: the file TEST_STACKS names.

    :param on_targets: process ids of target sides that are not descendants of `pid` (below an sshd).
    """
    family = [pid, *descendants(pid)]
    for each in filter(_writes_stacks, family):
        _signal(each)
    time.sleep(WRITING)
    text = ["processes of the run:", *map(_named, family)]
    if written.exists():
        text.append(written.read_text(errors="replace"))
    text.append("processes on targets:")
    for each in on_targets:
        if "svc-" in _named(each) or "python" in _named(each):
            text += [_named(each), _spied(each)]
    return "\n".join(text)


def _writes_stacks(pid: int) -> bool:
    """Whether the process has a handler for SIGUSR2; every other program would be ended by it."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGUSR2 - 1) & 1)


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGUSR2)
    except ProcessLookupError:
        pass


def _named(pid: int) -> str:
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{pid} {pathlib.Path(f'/proc/{pid}/comm').read_text().strip()}: {command[:200]}"
    except OSError:
        return f"{pid} (gone)"


def _spied(pid: int) -> str:
    program = shutil.which("py-spy", path=f"{pathlib.Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        return ""
    done = subprocess.run([program, "dump", "--pid", str(pid)], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr
