# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a run did, counted, and written as JSON at its end when ``stats_path`` is set.

Used by every part of the controller, in any thread. A forked worker counts in its own copy and hands the difference
to the parent when its task ends (`Counters.take`, `Counters.merge`).
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ansible_mitogen_svc.spans import recorder
from ansible_mitogen_svc.whole_file import write_whole

#: Round trips are kept one by one up to this number of tasks, then every second one is dropped, and so on.
SAMPLES_KEPT = 65536

_TOTALS = (
    ("identities", ("started", "recycled")),
    ("connections", ("opened", "reused", "lost", "failed")),
    ("module_cache", ("hits", "misses", "bytes_manifest", "bytes_module_utils", "bytes_module", "bytes_other")),
    ("packing", ("recorded", "walked", "ahead", "referred")),
    ("transfer", ("files", "bytes")),
    ("seconds", ("connect", "module", "transfer")),
)


class Counters:
    """Counters of one process. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._round_trips: list[int] = []
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counter()
        self._round_trips = []

    def add(self, *key: str, amount: float = 1) -> None:
        """Add `amount` to the counter named by `key`, outermost part first: ``add("tasks", "thread", "reason")``."""
        with self._lock:
            self._counts[key] += amount  # type: ignore[assignment]

    def task_round_trips(self, number: int) -> None:
        """Note how often a task waited for its target."""
        with self._lock:
            self._round_trips.append(number)
            if len(self._round_trips) > SAMPLES_KEPT:
                del self._round_trips[::2]

    def take(self) -> dict[str, Any]:
        """Everything counted so far, in plain types, and start again at nothing (for a forked worker)."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            trips, self._round_trips = self._round_trips, []
        listed = [[list(key), value] for key, value in counts.items()]
        return {"counts": listed, "round_trips": trips, "spans": recorder.take()}

    def merge(self, taken: Mapping[str, Any]) -> None:
        """Add what another process's `take` gave."""
        with self._lock:
            for key, value in taken["counts"]:
                self._counts[tuple(key)] += value
            self._round_trips.extend(taken["round_trips"])
        recorder.merge(taken["spans"])

    def report(self) -> dict[str, Any]:
        """The statistics as they are written to ``stats_path``: nested dicts, seconds as float, sizes in bytes."""
        import statistics  # takes 6 ms, and most runs write no report

        with self._lock:
            counts, trips = dict(self._counts), list(self._round_trips)
        report: dict[str, Any] = {"tasks": {}, "module_runs": {"zygote": {}, "cold": {}, "core": {}}}
        report.update({group: dict.fromkeys(names, 0) for group, names in _TOTALS})
        for key, value in sorted(counts.items()):
            place = report
            for part in key[:-1]:
                place = place.setdefault(part, {})
            place[key[-1]] = round(value, 6) if isinstance(value, float) else value
        report["round_trips_per_task"] = {
            "tasks": len(trips),
            "min": min(trips, default=0),
            "median": statistics.median(trips) if trips else 0,
            "max": max(trips, default=0),
        }
        return report

    def write(self, path: str) -> None:
        """Write the report to `path`. :raises OSError: as `write_whole`."""
        write_whole(path, json.dumps(self.report(), indent=2) + "\n")


#: The counters of this process.
counters = Counters()
