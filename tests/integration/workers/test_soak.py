# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""One process, thousands of tasks of all kinds: memory, threads, descriptors and processes stay what they were.

TEST_SOAK_ROUNDS sets the length: a round is 9 tasks for each of 16 hosts; 140 are the 20,000 tasks of a full soak.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import subprocess
import time
from dataclasses import dataclass

import pytest

from tests.integration.workers.conftest import OURS, Lab, where_workers_are_chosen

ROUNDS = int(os.environ.get("TEST_SOAK_ROUNDS", "140"))


@dataclass(frozen=True)
class Sample:
    """Of one process: anonymous memory in KiB, threads, descriptors.

    Anonymous memory counts a page whether or not a forked child still shares it. Private and proportional sizes jump
    when the last child of a process that forks has just ended: that tells who lives beside it, not what it holds.
    """

    memory: int
    threads: int
    descriptors: int


def sample(pid: int) -> Sample | None:
    directory = pathlib.Path(f"/proc/{pid}")
    try:
        sizes = dict(line.split(":", 1) for line in (directory / "smaps_rollup").read_text().splitlines()[1:])
        threads, descriptors = len(list((directory / "task").iterdir())), len(list((directory / "fd").iterdir()))
        return Sample(int(sizes["Anonymous"].split()[0]), threads, descriptors)
    except (OSError, ValueError, KeyError):
        return None


def descendants(pid: int) -> dict[int, str]:
    parents, names = {}, {}
    for directory in pathlib.Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stat = (directory / "stat").read_text()
                names[int(directory.name)] = (directory / "comm").read_text().strip()
                parents[int(directory.name)] = int(stat.rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = {pid: names.get(pid, "")}
    while more := {each: names[each] for each, parent in parents.items() if parent in found and each not in found}:
        found.update(more)
    return found


@where_workers_are_chosen
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_nothing_grows_in_the_second_half_of_a_long_run(lab: Lab) -> None:
    env = lab.environment(OURS + "linear")
    command = lab.command("soak.yml", 16, 16, "-e", f"rounds={ROUNDS}")
    output = (lab.directory / "output").open("w")
    process = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
    samples: dict[int, list[tuple[float, Sample]]] = {}
    counts: list[int] = []
    try:
        while process.poll() is None:
            now, family = time.monotonic(), descendants(process.pid)
            counts.append(len(family))
            for pid in family:
                if (taken := sample(pid)) is not None:
                    samples.setdefault(pid, []).append((now, taken))
            time.sleep(1)
    finally:
        if process.poll() is None:
            process.kill()
    run = lab.finished(process.returncode, (lab.directory / "output").read_text(), env)
    assert run.returncode == 0, run.output[-3000:]
    check_events(run.events)
    assert sum(sum(reasons.values()) for reasons in run.tasks.values()) == 16 + ROUNDS * 9 * 16
    assert set(run.tasks) == {"inline", "thread", "fork"}
    longest = max(len(each) for each in samples.values())
    for pid, taken in samples.items():
        if len(taken) > longest * 0.9:
            check_growth(pid, [each for _when, each in taken])
    half = len(counts) // 2
    # Jobs come and go between two looks; what is left behind stays.
    assert statistics.median(counts[half:]) <= statistics.median(counts[half // 2 : half]) + 2


def check_events(events: list[dict[str, object]]) -> None:
    """Each task of each round and host has a start and an end, and each item of the loop an event of its own."""
    kinds = [each["event"] for each in events]
    ends = sum(kinds.count(f"v2_runner_on_{end}") for end in ("ok", "skipped"))
    assert kinds.count("v2_runner_on_start") == ends == 16 + ROUNDS * 9 * 16
    assert kinds.count("v2_runner_item_on_ok") == ROUNDS * 2 * 16 + ROUNDS * 16


def check_growth(pid: int, taken: list[Sample]) -> None:
    quarter = len(taken) // 4
    third, last = taken[2 * quarter : 3 * quarter], taken[3 * quarter :]

    def highest(samples: list[Sample], attribute: str) -> int:
        return max(getattr(each, attribute) for each in samples)

    assert highest(last, "memory") < 1.05 * highest(third, "memory") + 512, (pid, third[0], last[-1])
    # Threads and descriptors come and go with jobs, and how many there are at most or mostly tells how busy the machine
    # was. What is left behind is there at the quietest moment, too.
    for attribute in ("threads", "descriptors"):
        before, after = (min(getattr(each, attribute) for each in half) for half in (third, last))
        assert after <= before + 1, (pid, attribute, before, after)
