# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The queue of a pool's threads: who is woken, and that no task and no thread is forgotten."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from patience import eventually

from ansible_mitogen_svc.service.task_queue import TaskQueue
from ansible_mitogen_svc.service.workers import Workers


@pytest.fixture
def workers():
    started = []

    def start(size):
        started.append(Workers(size, "test-workers", 0, lambda: None))
        started[-1].start()
        eventually(lambda: len(started[-1]._queue._sleepers) == size)
        return started[-1]

    yield start
    for one in started:
        one.stop()
        assert one.join(time.monotonic() + 10)


def test_tasks_that_wait_for_each_other_get_a_thread_each(workers):
    pool, met = workers(8), threading.Barrier(9)
    for _ in range(8):
        pool.put(lambda _: met.wait(20), None)
    met.wait(20)  # raises when one of them has no thread


def test_threads_of_a_pool_with_little_to_do_take_turns(workers):
    pool, seen = workers(4), []
    for number in range(40):
        pool.put(lambda _: seen.append(threading.get_ident()), None)
        eventually(lambda number=number: len(seen) == number + 1 and len(pool._queue._sleepers) == 4)
    assert all(seen[n : n + 4] == seen[:4] for n in range(0, 40, 4)) and len(set(seen)) == 4


def test_every_task_runs_once_whoever_puts_it_and_however_threads_are_switched(workers):
    pool, seen, interval = workers(5), [], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        putters = [
            threading.Thread(target=lambda base=base: [pool.put(seen.append, base + n) for n in range(2000)])
            for base in range(0, 8000, 2000)
        ]
        for thread in putters:
            thread.start()
        for thread in putters:
            thread.join(60)
        eventually(lambda: len(seen) == 8000)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(seen) == list(range(8000))
    # A thread that is being woken removes itself from the list and finds nothing to do: five, and none on its way.
    eventually(lambda: len(pool._queue._sleepers) == 5 and not pool._queue._waking)
    assert len(set(map(id, pool._queue._sleepers))) == 5


def test_an_interrupt_while_a_thread_is_being_woken_loses_neither_thread_nor_task(workers):
    pool, seen = workers(1), []
    lock = pool._queue._lock

    class Interrupted:
        """A lock that is left by KeyboardInterrupt, once."""

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *_):
            pool._queue._lock = lock
            lock.release()
            raise KeyboardInterrupt

    pool._queue._lock = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        pool.put(seen.append, 1)
    pool.put(seen.append, 2)
    eventually(lambda: seen == [1, 2])


def test_closing_ends_all_takers_and_returns_what_nobody_took():
    queue = TaskQueue()
    takers = [threading.Thread(target=lambda: queue.take(_locked())) for _ in range(3)]
    for thread in takers:
        thread.start()
    eventually(lambda: len(queue._sleepers) == 3)
    assert queue.close() == []
    for thread in takers:
        thread.join(10)
        assert not thread.is_alive()
    other = TaskQueue()
    other.put((print, 1))
    assert other.close() == [(print, 1)] and other.take(_locked()) is None


def _locked():
    lock = threading.Lock()
    lock.acquire()
    return lock
