# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""DeduplicatingInvoker: one execution per key, its value for all, bounded memory."""

from __future__ import annotations

import os
import signal
import threading
import time

import mitogen.core
import mitogen.service
import pytest
import service_actors as actors
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import eventually, pool_threads

from ansible_mitogen_svc.service import CallFailed, DeduplicatingInvoker, Error, call, call_async
from ansible_mitogen_svc.service.deduplicate import _frozen
from ansible_mitogen_svc.service.encoding import Encoded
from ansible_mitogen_svc.service.response_cache import CachedResponse, ResponseCache

EXPENSIVE = "service_actors.Expensive"


def test_children_and_local_callers_are_all_answered_by_one_execution(router, open_pool, connect):
    service = actors.Expensive(router)
    service.gate.clear()
    pool = open_pool(service, size=2)
    children = [connect() for _ in range(3)]
    replies = [child.call_async(actors.call_master, EXPENSIVE, "produce", key="k") for child in children]
    mine = [call_async(pool, EXPENSIVE, "produce", key="k") for _ in range(3)]
    eventually(lambda: pool.statistics().services[EXPENSIVE].cache.waiters == 5)
    service.gate.set()
    expected = {"key": "k", "execution": 1}
    assert [pending.result(20) for pending in mine] == [expected] * 3
    assert [reply.get().unpickle() for reply in replies] == [expected] * 3
    assert children[0].call(actors.call_master, EXPENSIVE, "produce", times=5, key="k") == [expected] * 5
    assert call(pool, EXPENSIVE, "produce", key="k") == expected
    assert len(service.executions) == 1


def test_mitogens_deduplicating_invoker_answers_no_caller_with_the_value(router, local):
    """Why ours exists: when this fails, mitogen has mended its own."""
    class Upstream(mitogen.service.Service):
        invoker_class = mitogen.service.DeduplicatingInvoker

        @mitogen.service.expose(policy=mitogen.service.AllowAny())
        def produce(self):
            return "value"

    pool = mitogen.service.Pool(router, [Upstream(router)])
    try:
        assert "has no attribute 'produce'" in local().call(actors.call_master, Upstream.name(), "produce")
    finally:
        pool.stop()


def test_two_hundred_waiters_on_a_slow_key_leave_a_pool_of_one_thread_to_others(router, open_pool, connect):
    service = actors.Expensive(router)
    service.gate.clear()
    pool = open_pool(service, actors.Plain(router), size=1)
    child = connect()
    reply = child.call_async(actors.call_master_at_once, EXPENSIVE, "produce", "key", ["slow"] * 200)
    eventually(lambda: pool.statistics().services[EXPENSIVE].cache.waiters == 199)
    other = connect()
    assert other.call(actors.call_master, "service_actors.Plain", "double", times=20, number=2) == [4] * 20
    assert len(pool_threads()) == 2  # the one thread, and the one of the execution
    service.gate.set()
    assert reply.get().unpickle() == [{"key": "slow", "execution": 1}] * 200
    eventually(lambda: pool.statistics().aside == 0)


def test_threads_besides_the_pools_are_limited(router, open_pool):
    service = actors.Expensive(router)
    service.gate.clear()
    pool = open_pool(service, size=1)
    pending = [call_async(pool, EXPENSIVE, "produce", key=n) for n in range(pool.aside_limit + 30)]
    eventually(lambda: len(service.executions) == pool.aside_limit + 1)
    time.sleep(0.05)
    assert len(pool_threads()) == pool.aside_limit + 1
    service.gate.set()
    assert sorted(one.result(10)["key"] for one in pending) == list(range(pool.aside_limit + 30))


def test_keys_are_distinct_by_method_arguments_and_types(router, open_pool, connect):
    service = actors.Expensive(router)
    open_pool(service)
    child = connect()
    keys = [1, True, 1.0, "1", b"1", None, [1], (1,), [1, 2], {"a": 1}, {"a": 2}]
    for _ in range(2):
        answers = child.call(actors.call_master_at_once, EXPENSIVE, "produce", "key", keys)
        assert sorted(answer["key"] is not None for answer in answers) == [False] + [True] * 10
        assert len(service.executions) == len(keys)
    child.call(actors.call_master, EXPENSIVE, "produce", key=1, other=2)
    assert len(service.executions) == len(keys) + 1
    child.call(actors.call_master, EXPENSIVE, "sized", size=1)
    assert len(service.executions) == len(keys) + 2


def test_the_key_can_be_overridden(router, open_pool, connect):
    class OneKey(DeduplicatingInvoker):
        def key_from_request(self, method_name, kwargs):
            return kwargs["key"].lower()

    class Service(actors.Expensive):
        invoker_class = OneKey

    service = Service(router)
    pool = open_pool(service)
    assert call(pool, Service, "produce", key="A", ignored=1) == call(pool, Service, "produce", key="a", ignored=2)
    for ignored in (3, 3, 3, 4):
        assert connect().call(actors.call_master, Service.name(), "produce", key="A", ignored=ignored)["execution"] == 1
    assert len(service.executions) == 1


def test_an_exception_reaches_all_who_wait_and_is_not_cached(router, open_pool, connect):
    service = actors.Expensive(router)
    service.gate.clear()
    pool = open_pool(service, size=2)
    child = connect()
    reply = child.call_async(actors.call_master_at_once, EXPENSIVE, "fail", "key", ["k"] * 10)
    mine = [call_async(pool, EXPENSIVE, "fail", key="k") for _ in range(3)]
    eventually(lambda: pool.statistics().services[EXPENSIVE].cache.waiters == 12)
    service.gate.set()
    assert all("LookupError: execution 1 failed" in answer for answer in reply.get().unpickle())
    for pending in mine:
        with pytest.raises(CallFailed, match="execution 1 failed"):
            pending.result(20)
    with pytest.raises(CallFailed, match="execution 2 failed"):
        call(pool, EXPENSIVE, "fail", key="k")
    assert pool.statistics().services[EXPENSIVE].methods["fail"].errors == 2


def test_the_cache_is_bounded_by_entries_and_the_least_recently_used_goes(router, open_pool, connect):
    class Small(actors.Expensive):
        def create_invoker(self):
            return DeduplicatingInvoker(self, max_entries=3)

    service = Small(router)
    pool = open_pool(service)
    child = connect()
    for number in (1, 2, 3, 1, 4, 1, 2):  # 4 evicts 2, then 2 evicts 3
        child.call(actors.call_master, Small.name(), "sized", size=10, number=number)
    assert [number for _, number in service.executions] == [1, 2, 3, 4, 2]
    cache = pool.statistics().services[Small.name()].cache
    assert (cache.entries, cache.evicted) == (3, 2)


def test_the_cache_is_bounded_by_bytes_and_a_value_too_large_is_delivered_all_the_same(router, open_pool, connect):
    class Small(actors.Expensive):
        def create_invoker(self):
            return DeduplicatingInvoker(self, max_bytes=100_000)

    service = Small(router)
    pool = open_pool(service)
    child = connect()
    for number in range(20):
        assert len(child.call(actors.call_master, Small.name(), "sized", size=10_000, number=number)) == 10_000
        assert pool.statistics().services[Small.name()].cache.bytes <= 100_000
    assert len(child.call(actors.call_master, Small.name(), "sized", size=200_000, times=2)[1]) == 200_000
    assert [size for size, _ in service.executions].count(200_000) == 2
    assert len(pool._roster.fast_replies) <= pool.statistics().services[Small.name()].cache.entries * 4


def test_values_grow_old_if_asked_for(router, open_pool, connect):
    class Aging(actors.Expensive):
        def create_invoker(self):
            return DeduplicatingInvoker(self, max_age=1.0)

    service = Aging(router)
    open_pool(service)
    child = connect()
    assert child.call(actors.call_master, Aging.name(), "produce", times=5, key=1)[4]["execution"] == 1
    time.sleep(1.05)
    assert child.call(actors.call_master, Aging.name(), "produce", times=5, key=1)[4]["execution"] == 2


def test_invalidation_is_explicit_and_covers_what_is_being_computed(router, open_pool, connect):
    service = actors.Expensive(router)
    pool = open_pool(service)
    child = connect()

    def execution(key="k"):
        return child.call(actors.call_master, EXPENSIVE, "produce", times=3, key=key)[2]["execution"]

    assert execution() == 1 and service.invoker.invalidate("produce", key="k")
    assert execution() == 2 and not service.invoker.invalidate("produce", key="other")
    service.invoker.invalidate_all()
    assert execution() == 3
    service.invoker.invalidate_all()
    service.gate.clear()
    pending = call_async(pool, EXPENSIVE, "produce", key="k")
    eventually(lambda: len(service.executions) == 4)
    assert service.invoker.invalidate("produce", key="k")
    service.gate.set()
    assert pending.result(20)["execution"] == 4  # who waited gets it, later callers do not
    assert execution() == 5


def test_a_waiter_whose_connection_dies_is_dropped(router, open_pool, connect):
    service = actors.Expensive(router)
    service.gate.clear()
    pool = open_pool(service)
    mine = call_async(pool, EXPENSIVE, "produce", key="k")
    child = connect()
    child.call(actors.start_call, EXPENSIVE, "produce", key="k")
    eventually(lambda: pool.statistics().services[EXPENSIVE].cache.waiters == 1)
    os.kill(child.call(os.getpid), signal.SIGKILL)
    eventually(lambda: pool.statistics().services[EXPENSIVE].cache.waiters == 0)
    assert (pool.statistics().pending, pool.statistics().dropped) == (1, 1)
    service.gate.set()
    assert mine.result(20)["execution"] == 1


def test_hits_need_no_pool_thread(router, open_pool, connect):
    service = actors.Expensive(router)
    pool = open_pool(service, actors.Plain(router), size=1)
    child = connect()
    child.call(actors.call_master, EXPENSIVE, "produce", times=2, key="k")
    plain = pool.get_service(actors.Plain)
    blocked = call_async(pool, actors.Plain, "wait")
    assert plain.entered.acquire(timeout=20)
    assert child.call(actors.call_master, EXPENSIVE, "produce", times=100, key="k")[99]["execution"] == 1
    assert not blocked.done()  # the pool's only thread was in that call all the time
    plain.gate.set()
    blocked.result(20)
    assert pool.statistics().services[EXPENSIVE].methods["produce"].deduplicated == 101


def test_raw_values_are_cached_and_broadcast(router, open_pool, connect):
    service = actors.Expensive(router)
    open_pool(service)
    child = connect()
    request = mitogen.core.Message.pickled((EXPENSIVE, "raw", mitogen.core.Kwargs({"size": 1000}))).data
    for _ in range(4):
        enc, value = child.call(actors.send_raw, mitogen.core.Blob(request), mitogen.core.Message.ENC_PKL)
        assert (enc, value) == (mitogen.core.Message.ENC_BIN, b"r" * 1000)
    assert service.executions == [1000]


def test_policies_hold_for_hits(router, open_pool, connect):
    service = actors.Expensive(router)
    pool = open_pool(service)
    assert call(pool, EXPENSIVE, "for_parents", key=1) == "secret"
    child = connect()
    assert all("Unauthorized" in a for a in child.call(actors.call_master, EXPENSIVE, "for_parents", times=3, key=1))


def test_methods_marked_so_run_for_each_request(router, open_pool, connect):
    service = actors.Expensive(router)
    pool = open_pool(service)
    child = connect()
    assert child.call(actors.call_master, EXPENSIVE, "count") == 0
    call(pool, EXPENSIVE, "produce", key=1)
    assert child.call(actors.call_master, EXPENSIVE, "count") == 1


def test_a_deduplicated_method_that_wants_msg_is_a_mistake(router, open_pool):
    class Mistaken(actors.Service):
        invoker_class = DeduplicatingInvoker

        @actors.expose(policy=actors.AllowAny())
        def method(self, msg):
            return msg.src_id

    pool = open_pool(Mistaken(router))
    with pytest.raises(CallFailed) as caught:
        call(pool, Mistaken, "method")
    assert isinstance(caught.value.__cause__, Error)


def test_a_call_that_waits_for_itself_is_told_so(router, open_pool):
    service = actors.Expensive(router)
    service.pool = open_pool(service)
    with pytest.raises(CallFailed, match="waits for itself"):
        call(service.pool, EXPENSIVE, "recursive", deadline=20)


def test_exactly_one_execution_per_key_however_many_threads_race(router, open_pool):
    service = actors.Expensive(router)
    pool = open_pool(service, size=4)
    barrier, answers = threading.Barrier(8), []

    def race() -> None:
        barrier.wait(5)
        answers.extend(call(pool, EXPENSIVE, "produce", key=number % 25)["key"] for number in range(100))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == sorted(number % 25 for number in range(100) for _ in range(8))
    assert sorted(key for key, _ in service.executions) == list(range(25))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES, _VALUES)
@settings(deadline=None)
def test_keys_are_equal_exactly_for_equal_values_of_equal_types(one, other):
    def exact(value):
        if isinstance(value, list):
            return ("list", [exact(item) for item in value])
        if isinstance(value, dict):
            return ("dict", sorted(((key, exact(item)) for key, item in value.items()), key=lambda pair: pair[0]))
        return (type(value).__name__, value)

    assert hash(_frozen(one)) == hash(_frozen(one))
    assert (_frozen(one) == _frozen(other)) == (exact(one) == exact(other))


@given(st.lists(st.tuples(st.sampled_from("pgdea"), st.integers(0, 9), st.integers(0, 400)), max_size=60))
@settings(deadline=None)
def test_the_cache_never_exceeds_its_bounds_and_its_books_balance(operations):
    forgotten = {}
    cache = ResponseCache(5, 2000, None, forgotten)
    for operation, key, size in operations:
        entry = cache.get(key)
        if operation == "p":
            cache.put(CachedResponse(key, b"x" * size, None))
        elif operation == "d":
            cache.drop(key)
        elif operation == "e" and entry is not None:
            cache.set_encoded(entry, Encoded(1, b"e" * size))
        elif operation == "a" and entry is not None and cache.add_alias(entry, b"%d" % size):
            forgotten[b"%d" % size] = entry
        assert len(cache) <= 5 and cache.bytes <= 2000
        assert cache.bytes == sum(cache._entries[key].cost for key in cache.keys())
        assert all(entry.kept for entry in forgotten.values())
