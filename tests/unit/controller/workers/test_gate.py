# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The fork gate: what it waits for, what it does not, and that it lets everybody go on."""

from __future__ import annotations

import threading
import time

from ansible_mitogen_svc.controller.workers import gate as gate_module
from ansible_mitogen_svc.controller.workers.gate import ForkGate


def start(function) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_an_idle_gate_closes_at_once_and_is_settled() -> None:
    gate = ForkGate()
    with gate.closed() as settled:
        assert settled
    assert gate.statistics() == gate_module.GateStatistics(closed=1, waited=0, unsettled=0)


def test_a_task_that_computes_is_waited_for_and_no_other_starts_meanwhile() -> None:
    gate, order, running = ForkGate(), [], threading.Event()

    def compute() -> None:
        with gate.task():
            running.set()
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                sum(range(50))
            order.append("computed")

    def late() -> None:
        with gate.task():
            order.append("late")

    threads = [start(compute)]
    running.wait()
    with gate.closed() as settled:
        threads.append(start(late))
        order.append("forked")
        time.sleep(0.05)
    for thread in threads:
        thread.join(5)
    assert settled and order == ["computed", "forked", "late"]
    assert gate.statistics().waited == 1


def test_a_blocking_wait_is_not_waited_for_but_ends_only_after_the_fork() -> None:
    gate, answer, order, waiting = ForkGate(), threading.Event(), [], threading.Event()

    def task() -> None:
        with gate.task():
            with gate.blocking():
                waiting.set()
                answer.wait()
            order.append("answered")

    thread = start(task)
    waiting.wait()
    with gate.closed() as settled:
        answer.set()
        time.sleep(0.05)
        order.append("forked")
    thread.join(5)
    assert settled and order == ["forked", "answered"]


def test_a_task_in_a_foreign_wait_counts_as_still() -> None:
    gate, asleep, wake = ForkGate(), threading.Event(), threading.Event()

    def task() -> None:
        with gate.task():
            asleep.set()
            wake.wait()

    thread = start(task)
    asleep.wait()
    started = time.monotonic()
    with gate.closed() as settled:
        assert settled and time.monotonic() - started < 1
    wake.set()
    thread.join(5)


def test_a_task_that_waits_for_the_main_thread_gets_its_answer_while_the_gate_closes() -> None:
    gate, asked, answered = ForkGate(), threading.Event(), threading.Event()

    def task() -> None:
        with gate.task():
            asked.set()
            while not answered.is_set():
                sum(range(100))

    thread = start(task)
    asked.wait()
    with gate.closed(meanwhile=answered.set) as settled:
        assert settled
    thread.join(5)


def test_a_thread_that_never_rests_is_given_up_on_and_counted(monkeypatch) -> None:
    monkeypatch.setattr(gate_module, "SETTLE_LIMIT", 0.2)
    gate, running, stop = ForkGate(), threading.Event(), threading.Event()

    def task() -> None:
        with gate.task():
            running.set()
            while not stop.is_set():
                sum(range(100))

    thread = start(task)
    running.wait()
    with gate.closed() as settled:
        assert not settled
    stop.set()
    thread.join(5)
    assert gate.statistics().unsettled == 1


def test_a_thread_that_imports_is_not_still(tmp_path, monkeypatch) -> None:
    """The child could never import that module: the lock of the import stays with a thread it does not have."""
    (tmp_path / "slow_to_import.py").write_text(
        "import threading; entered.set(); go_on.wait()".replace("entered", "hooks.entered")
        .replace("go_on", "hooks.go_on")
        .replace("import threading", "import slow_hooks as hooks")
    )
    (tmp_path / "slow_hooks.py").write_text("import threading\nentered, go_on = threading.Event(), threading.Event()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gate_module, "SETTLE_LIMIT", 0.3)
    import slow_hooks

    gate = ForkGate()

    def task() -> None:
        with gate.task():
            import slow_to_import  # noqa: F401

    thread = start(task)
    slow_hooks.entered.wait()
    with gate.closed() as settled:
        assert not settled
    slow_hooks.go_on.set()
    thread.join(5)
    with gate.closed() as settled:
        assert settled


def test_blocking_does_nothing_outside_a_task() -> None:
    gate = ForkGate()
    with gate.closed(), gate.blocking():
        pass
