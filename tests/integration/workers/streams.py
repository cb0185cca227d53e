# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Compares the callback event streams of two runs of one playbook: per host in order, the rest in order.

Volatile values are named here. What hosts do relative to each other is not compared: it differs between two runs of
core as well.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

#: Keys of results whose values differ from run to run.
VOLATILE = frozenset(
    "start end delta atime mtime ctime ino inode version uuid pid ansible_job_id results_file "
    "ansible_date_time SSH_CLIENT SSH_CONNECTION".split()
)
#: How often core looks after a job depends on the clock; so do attempts of tasks that say so in their name.
POLL = "v2_runner_on_async_poll"
BY_THE_CLOCK = "(by the clock)"
#: Core makes a new task for a result that it could not send, and loses what the task was called.
UNSENT = "Task result omitted due to queue send failure"
#: Core has no result then; the playbook's action has it raise an error of these words instead, from another place.
ENDED = "ended its worker with SystemExit"
INTERNAL = ("_ansible_tmpdir", "_ansible_remote_tmp")
_PATTERNS = (
    (re.compile(r"ansible-tmp-[\d.-]+"), "ansible-tmp"),
    (re.compile(r"ansible-moduletmp-[\d.]+-\w+"), "ansible-moduletmp"),
    (re.compile(r"ansible-local-\w+"), "ansible-local"),
    (re.compile(r"\b0x[0-9a-f]+"), "0x"),
    (re.compile(r"\bj?\d{8,}\.\d+"), "job"),
    # From the beginning of a word only: else a long word is looked through once for each of its letters.
    (re.compile(r"""(?<![^\s"'=])[^\s"'=]*/run-\w+-of"""), "run-of"),
    (re.compile(r"""(?<![^\s"'=])[^\s"'=]*/remote-\d+/"""), "remote/"),
    (re.compile(r"\d+:\d+:\d+\.\d+"), "time"),
    (re.compile(r"/tmp/[\w/-]*tmp\w{6,}"), "temporary"),
    (re.compile(r"ansible_mitogen\.svc\.(ssh|local)\b"), r"\1"),
    # A set, whose order depends on the hash seed.
    (re.compile(r"(?<=Valid booleans include: )[\w', ]+"), "some"),
)

Event = dict[str, Any]


def read(path: Any) -> list[Event]:
    """The events in a file of the event_stream callback."""
    with open(path) as file:
        return [json.loads(line) for line in file]


def normalized(value: Any) -> Any:
    """`value` without what differs from run to run."""
    if isinstance(value, dict):
        # Core's actions leave a module's internal arguments in the task; this one depends on the connection.
        kept = (each for each in value.items() if each[0] not in VOLATILE and not str(each[0]).startswith(INTERNAL))
        return {normalized(key): normalized(item) for key, item in kept}
    if isinstance(value, list):
        return [normalized(item) for item in value]
    if isinstance(value, str):
        for pattern, replacement in _PATTERNS:
            value = pattern.sub(replacement, value)
    return value


def _comparable(event: Event) -> Event | None:
    """`event` as it is compared; None: whether and how often it occurs is a matter of chance."""
    by_the_clock = BY_THE_CLOCK in str(event.get("task"))  # a name that is a template may be a number
    if event["event"] == POLL or (event["event"] == "v2_runner_retry" and by_the_clock):
        return None
    kept = {key: item for key, item in event.items() if key != "thread"}
    if by_the_clock and "result" in event:
        kept["result"] = {**event["result"], "attempts": "some"}
    if ENDED in str(event.get("result", {}).get("msg", "")):
        kept.pop("said", None)
    if str(event.get("result", {}).get("msg", "")).startswith(UNSENT):
        kept = {"event": event["event"], "host": event["host"], "msg": event["result"]["msg"]}
    return kept


def _by_host(events: Iterable[Event], lockstep: bool) -> dict[str, list[str]]:
    streams: dict[str, list[str]] = defaultdict(list)
    for event in filter(None, map(_comparable, events)):
        if not lockstep and event["event"] in ("v2_playbook_on_task_start", "v2_playbook_on_include"):
            streams[event["event"]].append(json.dumps(normalized(event), sort_keys=True))
        else:
            streams[event.get("host", "")].append(json.dumps(normalized(event), sort_keys=True))
    if not lockstep:
        for name in ("v2_playbook_on_task_start", "v2_playbook_on_include"):
            streams[name].sort()
    return streams


def differences(core: Iterable[Event], ours: Iterable[Event], lockstep: bool = True) -> list[str]:
    """One line for each event that is not the same in both. Empty: the runs cannot be told apart.

    :param lockstep: whether the order of tasks is the same in each run (linear), or a matter of chance (free).
    """
    found = []
    first, second = _by_host(core, lockstep), _by_host(ours, lockstep)
    for name in sorted(first.keys() | second.keys()):
        left, right = first.get(name, []), second.get(name, [])
        for index in range(max(len(left), len(right))):
            a = left[index] if index < len(left) else "(nothing)"
            b = right[index] if index < len(right) else "(nothing)"
            if a != b:
                at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
                start = max(0, at - 120)
                found.append(f"{name or 'run'}[{index}]:\n  core: {a[start : at + 160]}\n  ours: {b[start : at + 160]}")
    return found
