# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""One run as the timeline shows it: bars, each with the segments of where its time went.

Built by the callback at the end of a run, from what it saw of the tasks and from the span recorder. Under another
strategy than ours there are no spans, and a bar is one segment of the controller.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ansible_mitogen_svc.spans import SpanRecorder, Start

#: Where time goes, in the order of the legend.
KINDS = ("queue", "connect", "transfer", "module", "controller")
#: Segments shorter than this (seconds) are not worth a rectangle; they count for their neighbour.
SHORTEST = 0.0002

_Found = TypeVar("_Found", bound=Sequence[Any])


@dataclass
class Bar:
    """One task on one host. Times in seconds since the run's start.

    `segments`: (kind, begin, end), in order, without gaps. `worker`: inline, thread or fork, with its reason.
    """

    host: str
    task: str
    action: str
    begin: float
    end: float = 0.0
    status: str = "running"
    worker: str = ""
    reason: str = ""
    segments: list[tuple[str, float, float]] = field(default_factory=list)


class TimelineRecord:
    """Collects; see the module. `origin`: when the run began, of the monotonic clock."""

    def __init__(self) -> None:
        self.origin = time.monotonic()
        self.began = time.time()
        self.playbook = ""
        self._open: dict[tuple[str, str], Bar] = {}
        self._bars: list[tuple[tuple[str, str], Bar]] = []

    def start(self, host: str, uuid: str, task: str, action: str) -> None:
        """A task starts on a host."""
        self._open[(host, uuid)] = Bar(host, task, action, time.monotonic() - self.origin)

    def end(self, host: str, uuid: str, status: str) -> None:
        """Its result has come."""
        bar = self._open.pop((host, uuid), None)
        if bar is not None:
            bar.end, bar.status = time.monotonic() - self.origin, status
            self._bars.append(((host, uuid), bar))

    def has_bars(self) -> bool:
        """Whether any task has started."""
        return bool(self._bars or self._open)

    def finish(self, recorder: SpanRecorder) -> list[Bar]:
        """All bars, by begin, with what the recorder knows of them; without a result, as after Ctrl-C, they end now."""
        starts, runs = recorder.starts(), _by_key(recorder.take())
        for (host, uuid), bar in list(self._open.items()):
            self.end(host, uuid, bar.status)
        for key, bar in self._bars:  # in the order of their ends
            until = bar.end + self.origin
            bar.segments = self._segments(bar, _latest(starts.get(key), until), _latest(runs.get(key), until))
        return sorted((bar for _key, bar in self._bars), key=lambda bar: bar.begin)

    def _segments(
        self, bar: Bar, start: Start | None, run: list[Any] | None
    ) -> list[tuple[str, float, float]]:
        waits: list[tuple[str, float, float]] = []
        if start is not None:
            bar.worker, bar.reason = start[:2]
            bar.begin = min(bar.begin, start[2] - self.origin)
        if run is not None:
            bar.end = max(bar.end, run[3] - self.origin)
            if start is not None:
                waits.append(("queue", start[2] - self.origin, run[2] - self.origin))
            waits += [(kind, begin - self.origin, end - self.origin) for kind, begin, end in run[4]]
        return cut(bar.begin, bar.end, waits)


def _by_key(runs: Iterable[list[Any]]) -> dict[tuple[str, str], list[list[Any]]]:
    found: dict[tuple[str, str], list[list[Any]]] = {}
    for run in sorted(runs, key=_since):
        found.setdefault((run[0], run[1]), []).append(run)
    return found


def _since(start_or_run: Sequence[Any]) -> float:
    """When a start was queued, or a run began."""
    return float(start_or_run[2])


def _latest(found: list[_Found] | None, until: float) -> _Found | None:
    """Take the last one before `until`, and those before it: what is left belongs to later runs of the same task."""
    latest = None
    while found and _since(found[0]) <= until:
        latest = found.pop(0)
    return latest


def cut(begin: float, end: float, waits: Iterable[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Segments from `begin` to `end`: the waits, each from the end of the one before, and the controller between."""
    found: list[tuple[str, float, float]] = []
    now = begin
    for kind, since, until in sorted(waits, key=lambda wait: wait[1]):
        since, until = max(since, now), min(until, end)
        if until - since < SHORTEST:
            continue
        if since - now >= SHORTEST:
            found.append(("controller", now, since))
        else:
            since = now
        found.append((kind, since, until))
        now = until
    if end - now >= SHORTEST or not found:
        found.append(("controller", now, end))
    return found


def totals(bars: Iterable[Bar]) -> dict[str, float]:
    """Seconds by kind."""
    seconds = dict.fromkeys(KINDS, 0.0)
    for bar in bars:
        for kind, begin, end in bar.segments:
            seconds[kind] += end - begin
    return seconds


def as_plain(bars: list[Bar], playbook: str, began: float, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """What the page reads: names once each, bars as short lists of numbers."""
    hosts, tasks = _numbered(bar.host for bar in bars), _numbered(bar.task for bar in bars)
    workers = _numbered(f"{bar.worker} ({bar.reason})" if bar.worker else "core" for bar in bars)
    rows = []
    for bar in bars:
        worker = workers[f"{bar.worker} ({bar.reason})" if bar.worker else "core"]
        parts = [[KINDS.index(kind), round(begin, 4), round(end, 4)] for kind, begin, end in bar.segments]
        place = [hosts[bar.host], tasks[bar.task], worker]
        rows.append([*place, bar.status, bar.action, round(bar.begin, 4), round(bar.end, 4), parts])
    return {
        "playbook": playbook,
        "began": began,
        "kinds": KINDS,
        "hosts": list(hosts),
        "tasks": list(tasks),
        "workers": list(workers),
        "bars": rows,
        "seconds": totals(bars),
        "statistics": statistics,
    }


def _numbered(names: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for name in names:
        numbers.setdefault(name, len(numbers))
    return numbers
