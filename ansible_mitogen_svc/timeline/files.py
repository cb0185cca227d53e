# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Writes a timeline: the HTML report, complete in itself, and the trace for Chrome's and Perfetto's viewers.

Names of hosts and tasks are data in them: JSON in a script element that no name can end, shown by the page as text.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from ansible_mitogen_svc.timeline.record import Bar
from ansible_mitogen_svc.whole_file import write_whole

#: Microseconds, the trace format's unit.
_UNIT = 1_000_000


def write_report(path: str, plain: dict[str, Any]) -> None:
    """:raises OSError: as `write_whole`."""
    here = resources.files("ansible_mitogen_svc.timeline")
    page = here.joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(plain, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "LIBRARY": here.joinpath("vendor", "echarts.min.js").read_text(encoding="utf-8"),
        "PROGRAM": here.joinpath("page.js").read_text(encoding="utf-8"),
        "DATA": data,
    }
    # One split: what is put in is not searched again.
    pieces = page.split("@@")
    write_whole(path, "".join(parts.get(piece, piece) for piece in pieces))


def write_trace(path: str, bars: list[Bar]) -> None:
    """One thread of the trace per host; segments lie inside their task. :raises OSError: as `write_report`."""
    rows = {host: number for number, host in enumerate(dict.fromkeys(bar.host for bar in bars), 1)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": row, "args": {"name": host}} for host, row in rows.items()
    ]
    for bar in bars:
        place = {"ph": "X", "pid": 1, "tid": rows[bar.host]}
        told = {"status": bar.status, "action": bar.action, "worker": bar.worker, "reason": bar.reason}
        events.append({**place, "name": bar.task, "cat": "task", **_span(bar.begin, bar.end), "args": told})
        events += [
            {**place, "name": kind, "cat": kind, **_span(begin, end), "args": {}} for kind, begin, end in bar.segments
        ]
    write_whole(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":")))


def _span(begin: float, end: float) -> dict[str, int]:
    return {"ts": round(begin * _UNIT), "dur": max(0, round(end * _UNIT) - round(begin * _UNIT))}
