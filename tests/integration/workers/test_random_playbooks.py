# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Random playbooks (random_playbooks.py): events, output, exit status and the files left behind are those of core.

SVC_TEST_SEEDS: which seeds, "100-199" or how many; SVC_TEST_STRATEGY and SVC_TEST_WORKERS as for all tests. Where a
difference shows, core runs a second time: what differs between two runs of core says nothing about ours.
"""

from __future__ import annotations

import collections
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from random_playbooks import Writer, Written, lay_out, left_behind
from rig.playbook import STRATEGY
from streams import BY_THE_CLOCK, differences, normalized

from tests.integration.workers.conftest import OURS, Lab, Run

LOCKSTEP = STRATEGY not in ("free", "host_pinned")
#: Under free, hosts see of each other what chance has it, such as facts of `run_once` and names of handlers: then one.
HOSTS = 2 if LOCKSTEP else 1
QUICK = range(2)
#: Lines of output that depend on the clock, or on what the two runs are to differ in.
UNCOUNTED = re.compile(
    r"FAILED - RETRYING|ASYNC |strategy plugin|Deprecation warnings can be disabled|^\s*$|"
    + re.escape(BY_THE_CLOCK)
    + ("" if LOCKSTEP else r"|^TASK \[|^RUNNING HANDLER \[")
)
#: What has other names in each run, and results: they are compared as part of the events.
VARYING = re.compile(r"(?<=ansible-local/)\S+| => \{.*")
#: The way to an error that ends ansible-playbook itself.
FRAMES = re.compile(r"(?m)(?<=^Traceback \(most recent call last\):\n)(?: .*\n)+")
pytestmark = pytest.mark.timeout(300)


def seeds() -> range:
    """Those that are asked for."""
    first, _dash, last = os.environ.get("SVC_TEST_SEEDS", "20").rpartition("-")
    return range(int(first), int(last) + 1) if first else range(int(last))


@dataclass
class Seen:
    """All that can be told of a run."""

    run: Run
    files: dict[str, tuple[object, ...]]

    def lines(self) -> collections.Counter[str]:
        """Lines of the output, in any order: hosts differ in it."""
        lines = (VARYING.sub("", str(normalized(line))) for line in FRAMES.sub("", self.run.output).splitlines())
        return collections.Counter(line for line in lines if not UNCOUNTED.search(line))

    def differs(self, other: Seen) -> dict[str, str]:
        """What `other` does differently: where, and how."""
        found = {}
        for text in differences(self.run.events, other.run.events, lockstep=LOCKSTEP):
            found[text.split("\n")[0]] = text
        first, second = self.lines(), other.lines()
        for line in (first - second) + (second - first):
            found[f"line {line}"] = f"{first[line]} or {second[line]} times: {line}"
        for name in self.files.keys() | other.files.keys():
            mine, others = (normalized(str(side.files.get(name))) for side in (self, other))
            if mine != others:
                found[f"file {name}"] = f"file {name}: {mine} or {others}"
        if self.run.returncode != other.run.returncode:
            found["returncode"] = f"returncode {self.run.returncode} or {other.run.returncode}"
        return found


@pytest.fixture
def place() -> Iterator[pathlib.Path]:
    """A directory that other users can reach."""
    with tempfile.TemporaryDirectory(prefix="svc-random-", ignore_cleanup_errors=True) as name:
        pathlib.Path(name).chmod(0o755)
        yield pathlib.Path(name)


def see(lab: Lab, written: Written, strategy: str, place: pathlib.Path) -> Seen:
    """Run it on fresh files, with the same paths each time: playbooks may loop over the letters of one."""
    scratch, jobs = place / "run-random-of", place / "async"
    shutil.rmtree(scratch, ignore_errors=True)
    lay_out(scratch, HOSTS)
    jobs.mkdir(exist_ok=True)
    jobs.chmod(0o777)
    variables = {
        "scratch": str(scratch),
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_async_dir": str(jobs),
    }
    environment = {
        "ANSIBLE_DEPRECATION_WARNINGS": "true",
        "ANSIBLE_INJECT_FACT_VARS": "false",
        **written.environment,
    }
    run = lab.run(
        written.playbook, strategy, *written.arguments, hosts=HOSTS, forks=HOSTS, timeout=120, variables=variables,
        **environment,
    )  # fmt: skip
    # Every five seconds core's async_wrapper looks whether its job has ended, and removes what that was started from.
    until = time.monotonic() + 10
    while any(scratch.rglob("async_wrapper.py")) and time.monotonic() < until:
        time.sleep(0.2)
    return Seen(run, left_behind(scratch))


def check(lab: Lab, place: pathlib.Path, seed: int, plays: int, tasks: int) -> None:
    """Both strategies do the same with the playbook of `seed`."""
    written = Writer(seed).write(lab.directory, plays, tasks)
    core_strategy, our_strategy = "linear", OURS + "linear"
    if STRATEGY == "core":
        our_strategy = "linear"
    elif STRATEGY != "linear":
        core_strategy, our_strategy = STRATEGY, OURS + STRATEGY
    core = see(lab, written, core_strategy, place)
    ours = see(lab, written, our_strategy, place)
    if found := core.differs(ours):
        by_itself = core.differs(see(lab, written, core_strategy, place))
        found = {where: how for where, how in found.items() if where not in by_itself}
    shown = "\n".join(list(found.values())[:8])
    how_run = f"{written.arguments} {written.environment}\n{written.playbook}"
    assert not found, f"seed {seed}: {len(found)} differences\n{shown}\n{how_run}"


@pytest.mark.parametrize("seed", QUICK)
def test_a_small_random_playbook_does_what_it_does_under_core(ssh_lab: Lab, place: pathlib.Path, seed: int) -> None:
    check(ssh_lab, place, seed, plays=1, tasks=5)


@pytest.mark.long
@pytest.mark.parametrize("seed", seeds())
def test_a_random_playbook_does_what_it_does_under_core(ssh_lab: Lab, place: pathlib.Path, seed: int) -> None:
    check(ssh_lab, place, seed, plays=3, tasks=10)
