# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Invoker and SerializedInvoker."""

from __future__ import annotations

import threading

import pytest
import service_actors as actors
from patience import eventually

from ansible_mitogen_svc.service import InvalidRequest, call, call_async

PLAIN, SERIALIZED = "service_actors.Plain", "service_actors.Serialized"


def test_an_invoker_runs_calls_at_the_same_time(router, open_pool, connect):
    open_pool(actors.Rendezvous(router, parties=4), size=4)
    child = connect()
    assert child.call(actors.call_master_at_once, "service_actors.Rendezvous", "meet", "unused", []) == []
    waiting = [connect_one.call_async(actors.call_master, "service_actors.Rendezvous", "meet") for connect_one in
               (child, connect())]
    mine = [call_async(None, "service_actors.Rendezvous", "meet") for _ in range(2)]
    assert [reply.get().unpickle() for reply in waiting] == [True, True]
    assert [pending.result(20) for pending in mine] == [True, True]


def test_what_a_method_sends_before_it_returns_arrives_before_its_answer(router, open_pool, connect):
    open_pool(actors.Streams(router), actors.Plain(router), size=4)
    child, noise = connect(), connect()
    replies = [
        noise.call_async(actors.call_master_at_once, PLAIN, "double", "number", list(range(1000))) for _ in range(2)
    ]
    for _ in range(4):
        arrived = child.call(actors.receive_streams, "service_actors.Streams", 60, 3)
        assert arrived == [[0, 1, 2]] * 60
    for reply in replies:
        assert reply.get().unpickle() == [2 * number for number in range(1000)]


def test_serialized_calls_never_overlap_and_keep_each_callers_order(router, open_pool, connect):
    service = actors.Serialized(router)
    open_pool(service, size=4)
    children = [connect() for _ in range(3)]
    replies = [
        child.call_async(actors.call_master_at_once, SERIALIZED, "append", "number", list(range(60)), caller=index)
        for index, child in enumerate(children)
    ]
    for number in range(60):
        call(None, SERIALIZED, "append", caller="local", number=number)
    for reply in replies:
        reply.get().unpickle()
    assert service.overlaps == 0
    for caller in (0, 1, 2, "local"):
        assert [number for who, number, _ in service.calls if who == caller] == list(range(60))


def test_a_serialized_service_has_one_thread_while_calls_are_pending_and_none_otherwise(router, open_pool, connect):
    service = actors.Serialized(router)
    pool = open_pool(service, actors.Plain(router), size=2)
    child = connect()
    reply = child.call_async(
        actors.call_master_at_once, SERIALIZED, "append", "number", list(range(40)), caller=0, pause=0.01,
    )
    eventually(lambda: len(service.calls) > 2)
    assert [call(pool, PLAIN, "double", number=n, deadline=20) for n in range(5)] == [0, 2, 4, 6, 8]
    reply.get().unpickle()
    assert len({thread for _, _, thread in service.calls}) == 1
    eventually(lambda: pool.statistics().busy == 0)


def test_arrival_order_holds_while_the_service_is_being_activated(router, open_pool):
    pool = open_pool(size=4)
    pending = [call_async(pool, SERIALIZED, "append", caller=0, number=number) for number in range(300)]
    for one in pending:
        one.result(20)
    service = pool.get_service(SERIALIZED)
    assert [number for _, number, _ in service.calls] == list(range(300))
    assert service.overlaps == 0


def test_a_slow_first_call_of_a_plain_service_does_not_hold_up_the_second(router, open_pool):
    pool = open_pool(size=2)
    slow = call_async(pool, PLAIN, "wait")
    assert call(pool, PLAIN, "double", number=2, deadline=20) == 4
    pool.get_service(actors.Plain).gate.set()
    assert slow.result(20) == "through"


def test_a_serialized_method_that_calls_its_own_service_is_told_so(router, open_pool):
    service = actors.Serialized(router)
    service.pool = open_pool(service, size=1)
    with pytest.raises(Exception, match="serialized"):
        call(service.pool, SERIALIZED, "call_itself", deadline=20)
    assert call(service.pool, SERIALIZED, "listing", deadline=20) == []


def test_a_method_may_call_another_service_of_a_pool_of_one_thread(router, open_pool):
    class Caller(actors.Plain):
        @actors.expose(policy=actors.AllowAny())
        def ask(self):
            return call(pool, PLAIN, "double", number=4), call(pool, SERIALIZED, "listing")

    pool = open_pool(Caller(router), size=1)
    assert call(pool, Caller, "ask", deadline=20) == (8, [])


def test_an_activator_can_be_replaced(router, open_pool, connect):
    pool = open_pool(activator=actors.Nicknames())
    assert call(pool, "nickname", "double", number=3) == 6
    assert isinstance(pool.get_service("nickname"), actors.Plain)
    child = connect()
    assert child.call(actors.call_master, "nickname", "double", number=3) == 6
    assert child.call(actors.use_nicknames) == 3
    assert call(child, "nickname", "double", number=3, deadline=20) == 6
    assert child.call_service("nickname", "double", number=3) == 6
    with pytest.raises(InvalidRequest):
        call(pool, "service_actors.Other", "double", number=3)


def test_concurrent_first_calls_construct_one_service(router, open_pool):
    pool = open_pool(size=4)
    services, barrier = [], threading.Barrier(8)

    def get() -> None:
        barrier.wait(5)
        services.append(pool.get_service("service_actors.Plain"))

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(services) == 8 and len(set(map(id, services))) == 1
