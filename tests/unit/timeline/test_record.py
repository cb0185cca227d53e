# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How spans become the segments of a bar."""

from __future__ import annotations

import time

from ansible_mitogen_svc.spans import CONNECT, MODULE, SpanRecorder
from ansible_mitogen_svc.timeline.record import TimelineRecord, cut


def test_what_no_wait_covers_is_the_controllers() -> None:
    found = cut(0.0, 10.0, [("queue", 0.0, 1.0), ("module", 4.0, 9.0), ("connect", 2.0, 3.0)])
    kinds = [kind for kind, _begin, _end in found]
    assert kinds == ["queue", "controller", "connect", "controller", "module", "controller"]
    assert found[0][1] == 0.0 and found[-1][2] == 10.0
    assert all(before[2] == after[1] for before, after in zip(found, found[1:], strict=False))


def test_waits_that_overlap_are_counted_once() -> None:
    assert cut(0.0, 5.0, [("transfer", 0.0, 4.0), ("module", 1.0, 5.0)]) == [
        ("transfer", 0.0, 4.0),
        ("module", 4.0, 5.0),
    ]


def test_a_bar_without_spans_is_one_segment_of_the_controller() -> None:
    assert cut(1.0, 2.0, []) == [("controller", 1.0, 2.0)]


def test_the_recorder_gives_nothing_until_somebody_asks_for_it() -> None:
    recorder = SpanRecorder()
    recorder.started("host", "task", "thread", "remote", 0.0)
    with recorder.running("host", "task"):
        recorder.waited(MODULE, 0.0)
    assert recorder.take() == [] and recorder.starts() == {}


def test_a_handler_that_runs_again_has_a_bar_of_its_own_for_each_time() -> None:
    record, recorder = TimelineRecord(), SpanRecorder()
    recorder.enabled = True
    for kind in ("thread", "fork"):
        record.start("host", "uuid", "a handler", "ping")
        recorder.started("host", "uuid", kind, "", time.monotonic())
        with recorder.running("host", "uuid"):
            time.sleep(0.01)
        record.end("host", "uuid", "ok")
    first, second = record.finish(recorder)
    assert (first.worker, second.worker) == ("thread", "fork")
    assert first.end <= second.begin < second.end
    assert first.segments[-1][2] <= second.segments[0][1]


def test_a_task_that_has_no_result_when_the_run_ends_is_shown_as_running() -> None:
    record, recorder = TimelineRecord(), SpanRecorder()
    record.start("host", "uuid", "a task", "ping")
    [bar] = record.finish(recorder)
    assert bar.status == "running" and bar.end >= bar.begin and bar.segments


def test_what_another_process_took_is_part_of_its_tasks_bar() -> None:
    record, here, there = TimelineRecord(), SpanRecorder(), SpanRecorder()
    here.enabled = there.enabled = True
    record.start("host", "uuid", "a task", "ping")
    here.started("host", "uuid", "fork", "timeout", record.origin)
    with there.running("host", "uuid"):
        since = record.origin
        while not any(wait[2] - wait[1] > 0.01 for wait in there._open.waits or []):
            there.waited(CONNECT, since)
    here.merge(there.take())
    record.end("host", "uuid", "ok")
    [bar] = record.finish(here)
    assert (bar.worker, bar.reason, bar.status) == ("fork", "timeout", "ok")
    assert "connect" in [kind for kind, _begin, _end in bar.segments]
