# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Policies: who may call what."""

from __future__ import annotations

import service_actors as actors
from hypothesis import given
from hypothesis import strategies as st
from patience import eventually

from ansible_mitogen_svc.service import Registrations, call

PLAIN, OFFERS, EXPENSIVE = "service_actors.Plain", "service_actors.Offers", "service_actors.Expensive"


def test_allow_parents_admits_the_parent_and_refuses_a_child(router, open_pool, connect):
    open_pool(actors.Plain(router))
    child = connect()
    assert "Unauthorized" in child.call(actors.call_master, PLAIN, "for_parents")
    assert call(child, PLAIN, "for_parents", deadline=20) == "welcome"
    assert child.call_service(PLAIN, "for_parents") == "welcome"
    assert call(router.myself(), PLAIN, "for_parents") == "welcome"


def test_only_contexts_named_at_registration_get_a_resource(router, open_pool, connect):
    service = actors.Offers(router)
    open_pool(service)
    named, other = connect(), connect()
    service.registrations.register("/etc/motd", [named])
    assert named.call(actors.call_master, OFFERS, "fetch", path="/etc/motd") == "content of /etc/motd"
    refused = other.call(actors.call_master, OFFERS, "fetch", path="/etc/motd")
    unknown = other.call(actors.call_master, OFFERS, "fetch", path="/etc/shadow")
    assert "Unauthorized" in refused
    assert refused.replace("motd", "") == unknown.replace("shadow", "")  # nothing is learnt about what exists
    assert "Unauthorized" in named.call(actors.call_master, OFFERS, "fetch", path="/etc/shadow")
    service.registrations.withdraw("/etc/motd")
    assert "Unauthorized" in named.call(actors.call_master, OFFERS, "fetch", path="/etc/motd")


def test_each_resource_of_a_list_must_be_registered(router, open_pool, connect):
    service = actors.Offers(router)
    open_pool(service)
    child = connect()
    service.registrations.register("a", [child.context_id])
    service.registrations.register("b", [child.context_id, 4711])
    service.registrations.register("c", [4711])
    assert child.call(actors.call_master, OFFERS, "fetch_all", paths=["a", "b"]) == ["content of a", "content of b"]
    assert "Unauthorized" in child.call(actors.call_master, OFFERS, "fetch_all", paths=["a", "c"])
    assert "Unauthorized" in child.call(actors.call_master, OFFERS, "fetch_all", paths=[["a"]])


def test_a_cached_value_is_given_to_registered_contexts_only(router, open_pool, connect):
    service = actors.Expensive(router)
    open_pool(service)
    named, other = connect(), connect()
    service.registrations.register("x", [named])
    for _ in range(3):  # the later ones are hits that the broker thread answers
        assert named.call(actors.call_master, EXPENSIVE, "offered", name="x") == "content of x"
        assert "Unauthorized" in other.call(actors.call_master, EXPENSIVE, "offered", name="x")
    service.registrations.withdraw("x", [named])
    assert "Unauthorized" in named.call(actors.call_master, EXPENSIVE, "offered", name="x")
    assert service.executions == ["x"]


def test_registrations_of_a_context_end_with_its_connection(router, open_pool, connect):
    service = actors.Offers(router)
    open_pool(service)
    child = connect()
    service.registrations.register("x", [child])
    assert child.call(actors.call_master, OFFERS, "fetch", path="x") == "content of x"
    child.shutdown(wait=True)
    eventually(lambda: not service.registrations.contexts("x"))
    assert len(service.registrations) == 0


_OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["register", "withdraw", "withdraw all", "forget"]), st.integers(0, 3),
        st.lists(st.integers(0, 4), max_size=3),
    ),
    max_size=40,
)


@given(_OPERATIONS)
def test_registrations_agree_with_a_set_of_pairs(operations):
    table, pairs = Registrations(), set()
    for operation, resource, contexts in operations:
        if operation == "register":
            table.register(resource, contexts)
            pairs |= {(resource, context) for context in contexts}
        elif operation == "withdraw":
            table.withdraw(resource, contexts)
            pairs -= {(resource, context) for context in contexts}
        elif operation == "withdraw all":
            table.withdraw(resource)
            pairs = {pair for pair in pairs if pair[0] != resource}
        else:
            table.forget_context(resource)
            pairs = {pair for pair in pairs if pair[1] != resource}
        assert {(r, c) for r in range(4) for c in range(5) if table.permits(r, c)} == pairs
        assert len(table) == len({r for r, _ in pairs} | {r for r in range(4) if r in table._contexts})
