# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The doorbell: order is kept, nothing is lost, at most one ring is under way."""

from __future__ import annotations

import queue
import sys
import threading

from ansible_mitogen_svc.controller.workers import delivery
from ansible_mitogen_svc.controller.workers.delivery import Doorbell, TaskReporter
from ansible_mitogen_svc.controller.workers.kinds import WorkerKind
from ansible_mitogen_svc.controller.workers.plugin_policy import PluginTrust, TaskPolicy


def test_nothing_is_lost_between_many_threads_and_one_reader() -> None:
    rings: queue.SimpleQueue[bool] = queue.SimpleQueue()
    outstanding, most = 0, 0

    def ring() -> None:
        nonlocal outstanding, most
        outstanding += 1
        most = max(most, outstanding)
        rings.put(True)

    bell, seen = Doorbell(ring), []

    def worker(number: int) -> None:
        for step in range(200):
            bell.leave(lambda step=step: seen.append((number, step)))

    def reader() -> None:
        nonlocal outstanding
        while rings.get():
            outstanding -= 1
            bell.answer()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reading = threading.Thread(target=reader)
        reading.start()
        threads = [threading.Thread(target=worker, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rings.put(False)
        reading.join()
    finally:
        sys.setswitchinterval(before)
    assert most == 1
    assert len(seen) == 16 * 200
    for number in range(16):
        assert [step for by, step in seen if by == number] == list(range(200))


def test_a_result_stays_behind_the_callbacks_of_its_task() -> None:
    waiting, seen = [], []
    bell = Doorbell(lambda: waiting.append(bell.answer))
    reporter = TaskReporter(bell, lambda method, value: (method, value), lambda *event: seen.append(event))
    reporter.send_callback("item", 1)
    reporter.deliver(seen.append, "result")
    assert seen == []
    waiting.pop()()
    assert seen == [("item", 1), "result"] and not waiting


def test_a_result_without_callbacks_takes_the_short_way() -> None:
    seen: list[str] = []
    reporter = TaskReporter(Doorbell(lambda: seen.append("rung")), lambda: ("", None), lambda *event: None)
    reporter.deliver(seen.append, "result")
    assert seen == ["result"]


def test_what_a_task_sends_is_kept_until_it_can_no_longer_be_moved() -> None:
    seen: list[str] = []
    bell = Doorbell(lambda: seen.append("rung"))
    reporter = TaskReporter(bell, lambda *event: event, lambda *event: seen.append(event[0]))
    reporter.send_callback("first", None)
    bell.answer()
    assert seen == []
    reporter.settle()
    reporter.send_callback("second", None)
    bell.answer()
    assert seen == ["rung", "first", "second"]


def test_a_task_that_takes_its_time_is_told_of_and_stays(monkeypatch) -> None:
    now, seen, stays = [0.0], [], []
    monkeypatch.setattr(delivery.time, "monotonic", lambda: now[0])
    bell = Doorbell(lambda: None)
    reporter = TaskReporter(bell, lambda *_: ("", None), lambda *event: None)
    policy = TaskPolicy(WorkerKind.THREAD, PluginTrust(()), lambda name: True, settle=reporter.settle)
    reporter.stay = policy.stay
    for moment, told in ((0.0, 0), (0.4, 0), (1.0, 3), (1.1, 4)):
        now[0] = moment
        reporter.leave(lambda: seen.append(now[0]))
        bell.answer()
        stays.append(policy.started)
        assert len(seen) == told
    assert stays == [False, False, True, True]
