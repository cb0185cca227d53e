# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Pool: threads, deadlines, limits, closing, forks, statistics."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import mitogen.core
import mitogen.master
import mitogen.service
import pytest
import service_actors as actors
from patience import eventually, pool_threads

from ansible_mitogen_svc.service import (
    ConnectionLost,
    DeadlineExceeded,
    Error,
    Limits,
    Overloaded,
    Pool,
    ShuttingDown,
    call,
    call_async,
)

PLAIN, EXPENSIVE = "service_actors.Plain", "service_actors.Expensive"


def test_a_second_pool_on_a_router_is_a_clear_error(router, open_pool, connect):
    open_pool(actors.Plain(router))
    with pytest.raises(Error, match="already has a service pool"):
        Pool(router)
    assert call(None, PLAIN, "double", number=1) == 2  # the first one is unharmed
    assert connect().call(actors.call_master, PLAIN, "double", number=1) == 2


def test_the_number_of_threads_is_fixed(router, open_pool, connect):
    pool = open_pool(actors.Plain(router), size=3)
    assert len(pool_threads()) == pool.size == 3
    connect().call(actors.call_master_at_once, PLAIN, "double", "number", list(range(200)))
    assert len(pool_threads()) == 3
    with pytest.raises(Error, match="at least one thread"):
        Pool(router, size=0)


def test_services_can_be_added_later_and_found_by_name_or_class(router, open_pool, connect):
    pool = open_pool()
    service = actors.Plain(router)
    pool.add(service)
    assert pool.get_service(actors.Plain) is pool.get_service(PLAIN) is service
    pool.add(actors.Plain(router), "another name")
    assert connect().call(actors.call_master, "another name", "double", number=1) == 2
    with pytest.raises(Error, match="already has a service named"):
        pool.add(actors.Plain(router))


def test_a_pool_that_cannot_be_made_leaves_the_router_free(router, open_pool):
    with pytest.raises(Error, match="already has a service named"):
        open_pool(actors.Plain(router), actors.Plain(router))
    open_pool(actors.Plain(router))
    assert call(None, PLAIN, "double", number=1) == 2


def test_a_pool_is_a_context_manager_and_makes_room_for_the_next(router, connect):
    child = connect()
    for _ in range(3):
        with Pool(router, [actors.Plain(router)]) as pool:
            assert call(pool, PLAIN, "double", number=1) == 2
            assert child.call(actors.call_master, PLAIN, "double", number=1) == 2
        assert pool.closed and not pool_threads()
    with Pool(router, [actors.Plain(router)]) as pool:
        pool.stop()
        assert pool.closed and not pool_threads()
    with pytest.raises(ShuttingDown):
        call(pool, PLAIN, "double", number=1)
    with pytest.raises(Error, match="closed"):
        pool.add(actors.Expensive(router))


def test_defer_runs_a_function_in_a_pool_thread(router, open_pool):
    pool, names = open_pool(), []
    pool.defer(lambda: names.append(threading.current_thread().name))
    assert eventually(lambda: names)[0] in pool_threads()


# -- deadlines ---------------------------------------------------------------------------


def test_a_methods_deadline_answers_its_callers(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service)
    child = connect()
    began = time.monotonic()
    assert "DeadlineExceeded" in child.call(actors.call_master, PLAIN, "impatient")
    assert 0.15 < time.monotonic() - began < 5
    with pytest.raises(DeadlineExceeded):
        call(pool, PLAIN, "impatient")
    service.gate.set()
    eventually(lambda: pool.statistics().pending == 0)


def test_a_late_value_is_dropped_a_caller_has_one_answer(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, size=1)
    reply = connect().call_async(actors.errors_and_values_until, PLAIN, ("impatient", {}), ("double", {"number": 4}))
    eventually(lambda: "impatient" in pool.statistics().services[PLAIN].methods)
    eventually(lambda: pool.statistics().services[PLAIN].methods["impatient"].in_flight == 1)
    time.sleep(1)  # its deadline is 0.2 seconds
    service.gate.set()
    answers = reply.get().unpickle()
    assert [str(answer)[:2] for answer in answers] == ["er", "8"] and "DeadlineExceeded" in answers[0]
    assert pool.statistics().pending == 0


def test_the_pools_deadline_covers_the_queue_and_what_is_queued_too_long_is_not_run(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, size=1, deadline=0.3)
    running = call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    assert "DeadlineExceeded" in connect().call(actors.call_master, PLAIN, "note", text="queued too long")
    with pytest.raises(DeadlineExceeded):
        running.result(20)
    service.gate.set()
    assert call(pool, PLAIN, "double", number=1) == 2
    assert service.noted == []


def test_a_callers_deadline_travels_with_the_call(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, size=1)
    call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    child = connect()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        call(pool, PLAIN, "note", text="too late", deadline=0.1)
    with pytest.raises(DeadlineExceeded):
        call(child, PLAIN, "wait", deadline=1.0)
    assert time.monotonic() - began < 5
    child.call(actors.start_call_with_deadline, PLAIN, "note", 0.1, text="too late")
    time.sleep(0.2)
    service.gate.set()
    assert call(pool, PLAIN, "double", number=1) == 2
    assert service.noted == []


# -- limits ---------------------------------------------------------------------------


def test_more_calls_than_the_limit_are_answered_overloaded_and_nothing_else_is_lost(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, size=1, limits=Limits(pending=50))
    child = connect()
    reply = child.call_async(actors.call_master_at_once, PLAIN, "wait", "unused", [])
    reply.get()
    call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    reply = child.call_async(actors.call_master_at_once, PLAIN, "double", "number", list(range(200)))
    eventually(lambda: pool.statistics().overloaded == 151)
    with pytest.raises(Overloaded):
        call(pool, PLAIN, "double", number=1)
    assert pool.statistics().pending == 50
    service.gate.set()
    answers = reply.get().unpickle()
    assert answers[:49] == [2 * number for number in range(49)]
    assert all("Overloaded" in answer for answer in answers[49:])
    assert child.call(actors.call_master, PLAIN, "double", number=1) == 2


def test_one_context_cannot_use_up_the_room_of_all(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, size=1, limits=Limits(pending_per_context=20))
    call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    greedy, modest = connect(), connect()
    flood = greedy.call_async(actors.call_master_at_once, PLAIN, "double", "number", list(range(100)))
    eventually(lambda: pool.statistics().overloaded == 80)
    polite = modest.call_async(actors.call_master_at_once, PLAIN, "double", "number", list(range(20)))
    eventually(lambda: pool.statistics().pending == 41)
    service.gate.set()
    assert polite.get().unpickle() == [2 * number for number in range(20)]
    assert sum("Overloaded" in str(answer) for answer in flood.get().unpickle()) == 80


def test_queued_bytes_are_bounded_and_an_oversized_request_is_refused(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, size=1, limits=Limits(pending_bytes=500_000, request_bytes=200_000))
    child = connect()
    assert "too large" in child.call(actors.call_master, PLAIN, "echo", value="x" * 300_000)
    call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    values = [str(number) + "x" * 100_000 for number in range(8)]
    reply = child.call_async(actors.call_master_at_once, PLAIN, "echo", "value", values)
    eventually(lambda: pool.statistics().overloaded == 4)
    assert pool.statistics().pending_bytes < 500_000
    service.gate.set()
    assert reply.get().unpickle()[:4] == values[:4]
    eventually(lambda: pool.statistics().pending_bytes == 0)


# -- closing ---------------------------------------------------------------------------


def test_close_under_load_returns_in_time_and_answers_every_caller(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, actors.Expensive(router), size=2)
    children = [connect() for _ in range(3)]
    replies = [
        child.call_async(actors.call_master_at_once, PLAIN, "double", "number", list(range(1500))) for child in children
    ]
    mine = [call_async(pool, PLAIN, "wait") for _ in range(10)]
    assert service.entered.acquire(timeout=20)
    began = time.monotonic()
    pool.close(deadline=0.5)
    assert time.monotonic() - began < 1.5
    for pending in mine:
        with pytest.raises(ShuttingDown):
            pending.result(0)
    for reply in replies:
        answers = reply.get().unpickle()
        assert len(answers) == 1500
        for number, answer in enumerate(answers):
            # after the pool is gone, the router answers that there is no such handle
            assert answer == 2 * number or "ShuttingDown" in answer or "invalid handle" in answer
    service.gate.set()
    eventually(lambda: not pool_threads())


def test_queued_calls_are_answered_at_once_when_the_pool_closes_not_at_its_deadline(router, open_pool):
    service = actors.Plain(router)
    pool = open_pool(service, size=1)
    running = call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    queued = [call_async(pool, PLAIN, "double", number=number) for number in range(5)]
    closing = threading.Thread(target=pool.close, args=(15.0,))
    closing.start()
    for pending in queued:
        with pytest.raises(ShuttingDown):
            pending.result(10)
    assert closing.is_alive() and not running.done()
    service.gate.set()
    assert running.result(20) == "through"  # what runs may finish
    closing.join(20)
    assert not closing.is_alive()


def test_an_idle_pool_closes_at_once(router, open_pool):
    pool = open_pool(actors.Plain(router), size=8)
    began = time.monotonic()
    assert pool.close() is True
    assert time.monotonic() - began < 0.5


def test_nothing_keeps_a_closed_pool_alive(router, connect):
    service = actors.Expensive(router)
    pool = Pool(router, [actors.Plain(router), service, actors.Listener(router)], deadline=30)
    child = connect()
    child.call(actors.call_master, EXPENSIVE, "produce", times=3, key=1)
    child.call(actors.call_master, PLAIN, "fail")
    call(pool, PLAIN, "double", number=1)
    with pytest.raises(Exception, match="out of order"):
        call(pool, PLAIN, "fail")
    reference = weakref.ref(pool)
    gc.collect()
    gc.disable()
    try:
        pool.close()
        del pool
        eventually(lambda: reference() is None, seconds=2)
    finally:
        gc.enable()
    # the connection's signals hold nothing of it either
    router.broker.defer_sync(lambda: None)
    listeners = vars(child)["_signals"]["disconnect"]
    assert not [f for f in listeners if "ansible_mitogen_svc" in getattr(getattr(f, "func", f), "__module__", "")]


def test_a_dead_broker_does_not_hold_up_closing():
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    service = actors.Plain(router)
    pool = Pool(router, [service])
    pending = call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    broker.shutdown()
    broker.join()
    service.gate.set()
    assert pending.result(20) == "through"  # a local caller needs no broker
    began = time.monotonic()
    assert pool.close() is True
    assert time.monotonic() - began < 1
    assert service.shutdowns
    with pytest.raises((ConnectionLost, ShuttingDown)):
        call(router.context_by_id(4711), PLAIN, "double", number=1, deadline=20)


def test_the_brokers_shutdown_closes_the_pool_and_answers_callers(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service)
    connect().call(actors.start_call, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    router.broker.shutdown()
    router.broker.join()
    assert pool.closed and pool.statistics().pending == 0
    service.gate.set()
    eventually(lambda: not pool_threads())
    assert len(service.shutdowns) == 1


def test_a_process_with_an_open_pool_and_a_method_that_never_returns_can_exit():
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import mitogen.master, service_actors as actors, time\n"
        "from ansible_mitogen_svc.service import Pool, call_async\n"
        "broker = mitogen.master.Broker(); router = mitogen.master.Router(broker)\n"
        "service = actors.Plain(router); pool = Pool(router, [service])\n"
        "call_async(pool, actors.Plain, 'wait'); service.entered.acquire(timeout=20)\n"
        "broker.shutdown(); broker.join()\n"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    assert time.monotonic() - began < 15


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forked_children_do_not_touch_the_pool(router, open_pool):
    pool = open_pool(actors.Plain(router))
    calls = threading.Event()

    def keep_calling() -> None:
        while not calls.is_set():
            call(pool, PLAIN, "double", number=1)

    thread = threading.Thread(target=keep_calling)
    thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                os._exit(_in_fork(pool))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        calls.set()
        thread.join(5)
    assert call(pool, PLAIN, "double", number=2) == 4


def _in_fork(pool) -> int:
    import signal

    signal.alarm(10)
    try:
        for target in (pool, None):
            try:
                call(target, PLAIN, "double", number=1)
                return 1
            except Error:
                pass
        return 2 if pool.close() else 0
    except BaseException:
        return 3


# -- statistics ---------------------------------------------------------------------------


def test_statistics_tell_what_happened(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, actors.Expensive(router), size=2)
    child = connect()
    child.call(actors.call_master, PLAIN, "double", times=30, number=1)
    child.call(actors.call_master, PLAIN, "fail", times=3)
    child.call(actors.call_master, PLAIN, "double")
    child.call(actors.call_master, PLAIN, "made up")
    child.call(actors.call_master, EXPENSIVE, "produce", times=10, key=1)
    call_async(pool, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    now = pool.statistics()
    methods = now.services[PLAIN].methods
    assert (methods["double"].calls, methods["fail"].calls, methods["fail"].errors) == (30, 3, 3)
    assert methods["wait"].in_flight == 1 and now.busy == 1 and now.pending == 1
    assert "made up" not in methods and now.refused == 2
    produced = now.services[EXPENSIVE].methods["produce"]
    assert (produced.calls, produced.deduplicated, produced.run_time.count) == (10, 9, 1)
    times = methods["double"].queue_time
    assert 0 < times.p50 <= times.p90 <= times.p99 <= times.maximum < 5
    with pytest.raises(AttributeError):
        now.busy = 3
    service.gate.set()
    eventually(lambda: pool.statistics().services[PLAIN].methods["wait"].run_time.count == 1)


def test_percentiles_are_at_most_an_eighth_above_the_truth():
    from ansible_mitogen_svc.service.statistics import Histogram

    histogram = Histogram()
    for micros in range(1, 100_001):
        histogram.add(micros / 1e6)
    found = histogram.percentiles()
    assert found.count == 100_000 and found.maximum == 0.1
    for value, truth in ((found.p50, 0.05), (found.p90, 0.09), (found.p99, 0.099)):
        assert truth <= value <= truth * 1.126
