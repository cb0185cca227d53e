# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The playbook that mixes everything, again and again: no repeat differs from core, none hangs.

SVC_TEST_REPEATS: how many (300), or which ones ("100-199"), so that several processes or machines can share them.
SVC_TEST_REPEATS_LOG: a file of JSON lines to which each repeat is appended. What it holds for the same commit and
ansible-core is not repeated, so a broken-off series goes on where it was; what core did is kept beside it.
Every fourth repeat changes threads every 10 microseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable
from typing import Any

import ansible.release
import pytest
import streams

from tests.integration.workers.conftest import CHECKOUT, HERE, OURS, Lab, RunHangs, where_workers_are_chosen

#: Seconds that one run may take, also on a machine with much else to do, before it counts as hanging.
LIMIT = 600
pytestmark = [where_workers_are_chosen, pytest.mark.long, pytest.mark.timeout(4 * LIMIT)]


def numbers() -> range:
    """The repeats this session is asked for."""
    first, _dash, last = os.environ.get("SVC_TEST_REPEATS", "300").rpartition("-")
    return range(int(first), int(last) + 1) if first else range(int(last))


class Ledger:
    """What has been done, in the file of SVC_TEST_REPEATS_LOG, for the commit that is checked out."""

    def __init__(self) -> None:
        named = os.environ.get("SVC_TEST_REPEATS_LOG", "")
        self.path = pathlib.Path(named) if named else None
        self.key = {"commit": _commit(), "core": ansible.release.__version__}

    def done(self) -> set[int]:
        """Repeats that need not be made again."""
        if self.path is None or not self.path.exists():
            return set()
        entries = map(json.loads, self.path.read_text().splitlines())
        return {each["repeat"] for each in entries if each["outcome"] == "equal" and self.key.items() <= each.items()}

    def add(self, **values: Any) -> None:
        """One line; lines of several processes do not mix."""
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({**self.key, "load": os.getloadavg()[0], **values}) + "\n")

    def core_events(self, run: Callable[[], list[streams.Event]]) -> list[streams.Event]:
        """What `run` gives, kept beside the log as long as what core runs is the same."""
        if self.path is None:
            return run()
        digest = hashlib.sha256(f"{HERE} {self.key['core']}".encode())
        for path in sorted(
            path for place in ("plays", "callback_plugins", "site") for path in (HERE / place).rglob("*")
        ):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.read_bytes())
        kept = self.path.with_name(f"{self.path.name}.core-{digest.hexdigest()[:16]}")
        with open(f"{kept}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_text(json.dumps(run()))
        events: list[streams.Event] = json.loads(kept.read_text())
        return events


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", CHECKOUT, *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else "unknown"

    return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain") else "")


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """Of this session."""
    return Ledger()


_core: list[streams.Event] = []


@pytest.fixture
def core_events(ledger: Ledger, ssh_lab: Lab) -> list[streams.Event]:
    """What happens under core: run once, as two runs of core are equal too (the first test shows it)."""
    if not _core:
        _core.extend(ledger.core_events(lambda: ssh_lab.mixed("linear", timeout=2 * LIMIT).events))
    return _core


def test_core_gives_the_same_event_stream_each_time(ssh_lab: Lab, core_events: list[streams.Event]) -> None:
    """Else a difference of ours would say nothing."""
    again = ssh_lab.mixed("linear", timeout=2 * LIMIT)
    assert not streams.differences(core_events, again.events)


@pytest.mark.parametrize("repeat", numbers())
def test_repeats_give_the_event_stream_of_core_and_end(
    repeat: int, ledger: Ledger, core_events: list[streams.Event], ssh_lab: Lab
) -> None:
    if repeat in ledger.done():
        pytest.skip(f"repeat {repeat} has been made, see {ledger.path}")
    interval = {"TEST_SWITCH_INTERVAL": "0.00001"} if repeat % 4 == 3 else {}
    begun = time.monotonic()
    try:
        ours = ssh_lab.mixed(OURS + "linear", timeout=LIMIT, **interval)
    except RunHangs as hang:
        ledger.add(repeat=repeat, outcome="hang", found=str(hang))
        raise
    found = streams.differences(core_events, ours.events)
    missing = {"inline", "thread", "fork"} - set(ours.tasks)
    outcome = "different" if found or missing else "equal"
    ledger.add(
        repeat=repeat, outcome=outcome, found=found, seconds=round(time.monotonic() - begun, 1), tiny=bool(interval)
    )
    assert not found, f"{len(found)} events differ\n" + "\n".join(found[:5]) + ours.output[-3000:]
    assert not missing
