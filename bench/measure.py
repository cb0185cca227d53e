# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs one ansible-playbook process and measures it.

Called by `bench/run.py`, one run at a time. Wall time is from start to exit; controller CPU is what the kernel accounts
to the process and the children it waited for; machine CPU is everything that was not idle on all processors meanwhile,
so other work on the machine counts too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """One run. Times in seconds; `output` holds what a failed run said of its failure."""

    returncode: int
    wall: float
    controller_cpu: float
    machine_cpu: float
    output: str = ""

    @property
    def good(self) -> bool:
        return self.returncode == 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def machine_cpu_seconds() -> float:
    """Seconds of all processors that were neither idle nor waiting for a disk, since boot (/proc/stat)."""
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, *_rest = fields
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def run(command: list[str], environment: dict[str, str], directory: Path, timeout: float) -> Measurement:
    """Run command in directory, which keeps its output; kill its whole process group after timeout seconds."""
    log = directory / "output"
    machine = machine_cpu_seconds()
    started = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    timer = threading.Timer(timeout, kill_group, [process.pid])
    timer.start()
    try:
        _pid, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        kill_group(process.pid)
        raise
    finally:
        timer.cancel()
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measurement(
        returncode=process.returncode,
        wall=wall,
        controller_cpu=usage.ru_utime + usage.ru_stime,
        machine_cpu=machine_cpu_seconds() - machine,
        output="" if process.returncode == 0 else failure_text(log.read_text(errors="replace")),
    )


def failure_text(output: str) -> str:
    """The first lines of ansible-playbook's output that name an error, or its end when none does."""
    lines = [line for line in output.splitlines() if "fatal:" in line or "ERROR" in line or "Traceback" in line]
    return "\n".join(line[:500] for line in lines[:4]) or output[-1000:]


def kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
