# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Worker threads are reused and end; locks around core's methods are put there once and are free in a child."""

from __future__ import annotations

import os
import threading

import pytest

from ansible_mitogen_svc.controller.workers.locks import guard_methods, loader_lock, variables_lock
from ansible_mitogen_svc.controller.workers.pool import WorkerThreads


def test_one_job_after_the_other_takes_one_thread() -> None:
    pool, done = WorkerThreads(), threading.Event()
    for _repeat in range(50):
        done.clear()
        pool.submit(done.set)
        assert done.wait(5)
        while pool.statistics().busy:
            pass
    assert pool.statistics().threads == 1 and pool.statistics().jobs == 50
    assert pool.close(5)


def test_jobs_at_a_time_take_a_thread_each() -> None:
    pool, together = WorkerThreads(), threading.Barrier(9)
    for _repeat in range(8):
        pool.submit(together.wait)
    together.wait(5)
    assert pool.statistics().threads == 8
    assert pool.close(5)


def test_a_thread_that_does_not_end_is_not_waited_for() -> None:
    pool, never = WorkerThreads(), threading.Event()
    pool.submit(never.wait)
    assert not pool.close(0.1)
    never.set()


def test_after_a_thread_that_did_not_end_all_jobs_are_run() -> None:
    """ansible-console goes on after Ctrl-C, with another TaskQueueManager."""
    pool, never, done = WorkerThreads(), threading.Event(), threading.Semaphore(0)
    pool.submit(never.wait)
    assert not pool.close(0.1)
    for _repeat in range(3):  # one at a time: with others behind it, a job is found by a thread that one of them starts
        pool.submit(done.release)
        assert done.acquire(timeout=5)
    never.set()
    assert pool.close(5) and pool.statistics().busy == 0


def test_a_job_that_raises_takes_no_thread_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: shown.append(arguments.exc_type))

    def interrupt() -> None:
        raise KeyboardInterrupt

    pool, done = WorkerThreads(), threading.Event()
    pool.submit(interrupt)
    while pool.statistics().busy:
        pass
    pool.submit(done.set)
    assert done.wait(5)
    assert shown == [KeyboardInterrupt] and pool.statistics().threads == 1
    assert pool.close(5)


def test_a_method_is_guarded_once_and_inherited_ones_not_at_all() -> None:
    class Base:
        def inherited(self) -> str:
            return "inherited"

    class Core(Base):
        def method(self) -> bool:
            held = []

            def try_it() -> None:
                held.append(not lock.acquire(blocking=False))

            thread = threading.Thread(target=try_it)
            thread.start()
            thread.join()
            return held[0]

    lock = threading.RLock()
    guard_methods(Core, ("method", "inherited", "no_such"), lock)
    guarded = Core.method
    guard_methods(Core, ("method",), lock)
    assert Core.method is guarded and "inherited" not in Core.__dict__
    assert Core().method()


def test_a_forked_child_finds_our_locks_free_whoever_held_them() -> None:
    for lock in (variables_lock, loader_lock):
        held, release = threading.Event(), threading.Event()

        def hold(lock=lock, held=held, release=release) -> None:
            with lock:
                held.set()
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if lock.acquire(timeout=2) else 1)
        release.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
