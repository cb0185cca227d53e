# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a pool withstands: many children, children that die, messages that are no calls."""

from __future__ import annotations

import collections
import json
import os
import pickle
import signal
import sys

import mitogen.core
import mitogen.service
import pytest
import service_actors as actors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import eventually, pool_threads

from ansible_mitogen_svc.service import AllowParents, CallFailed, InvalidRequest, call, encoding

PLAIN, EXPENSIVE = "service_actors.Plain", "service_actors.Expensive"
PKL, BIN = mitogen.core.Message.ENC_PKL, mitogen.core.Message.ENC_BIN


class Counting(actors.Plain):
    """Counts every call it gets."""

    def __init__(self, router):
        super().__init__(router)
        self.seen = collections.Counter()

    @actors.expose(policy=actors.AllowAny())
    def echo(self, value):
        self.seen[value] += 1
        return value


@pytest.mark.parametrize("hops", [0, 5], ids=["local", "local and behind ssh"])
def test_ten_thousand_calls_of_fifty_children_at_once_lose_and_duplicate_nothing(
        router, open_pool, local, over_ssh, hops):
    service = Counting(router)
    pool = open_pool(service, size=1)  # Counter is not thread-safe
    # each host reached over ssh has four more children, whose calls come through the same connection
    reached = [over_ssh() for _ in range(hops)]
    children = reached + [router.local(via=host, python_path=sys.executable) for host in reached for _ in range(4)]
    children += [local() for _ in range(50 - len(children))]
    replies = [child.call_async(actors.call_many, Counting.name(), n, 200) for n, child in enumerate(children)]
    assert [reply.get().unpickle() for reply in replies] == [[]] * 50
    assert service.seen == {(caller, number): 1 for caller in range(50) for number in range(200)}
    now = pool.statistics()
    assert (now.pending, now.overloaded, now.refused) == (0, 0, 0)
    assert now.services[Counting.name()].methods["echo"].calls == 10_000


def test_children_killed_during_calls_leave_nothing_behind(router, open_pool, connect):
    plain, expensive = actors.Plain(router), actors.Expensive(router)
    expensive.gate.clear()
    pool = open_pool(plain, expensive, size=2)
    settled = connect()
    settled.call(actors.call_master, PLAIN, "double", number=1)
    handlers, threads = len(router._handle_map), len(pool_threads())
    children = [connect() for _ in range(4)]
    for child in children:
        for method in ("wait", "double"):
            child.call(actors.start_call, PLAIN, method)
        child.call(actors.start_call, EXPENSIVE, "produce", key=1)
        expensive.registrations.register("x", [child])
    pending = call_to_each(children)
    eventually(lambda: pool.statistics().pending >= 10)
    for child in children:
        os.kill(child.call(os.getpid), signal.SIGKILL)
    for one in pending:
        with pytest.raises(CallFailed):
            one.result(10)
    eventually(lambda: pool.statistics().pending == 0)
    assert len(expensive.registrations) == 0
    plain.gate.set()
    expensive.gate.set()
    eventually(lambda: pool.statistics().busy == 0 and pool.statistics().aside == 0)
    eventually(lambda: len(pool_threads()) == threads)
    assert pool.statistics().services[EXPENSIVE].cache.waiters == 0
    assert len(router._handle_map) == handlers
    assert not pool._departures._watched.keys() - {settled.context_id}
    assert settled.call(actors.call_master, PLAIN, "double", number=2) == 4


def call_to_each(children):
    """A call of ours to a service of each child, that will not be answered."""
    from ansible_mitogen_svc.service import call_async

    return [call_async(child, PLAIN, "wait") for child in children]


def _pickled(value):
    return mitogen.core.Message.pickled(value).data


MALFORMED = {
    "empty": (b"", PKL),
    "not a pickle": (b"hello", PKL),
    "cut off": (_pickled((PLAIN, "double", mitogen.core.Kwargs({"number": 1})))[:-9], PKL),
    "two elements": (_pickled((PLAIN, "double")), PKL),
    "a list": (_pickled([PLAIN, "double", {}]), PKL),
    "numbers": (_pickled((1, 2, {})), PKL),
    "no mapping": (_pickled((PLAIN, "double", [1])), PKL),
    "argument names that are no text": (_pickled((PLAIN, "double", {1: 2})), PKL),
    "a foreign class": (pickle.dumps((PLAIN, "double", {"number": collections.Counter("ab")}), 2), PKL),
    "a function": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", PKL),
    "a deadline that is none": (_pickled((PLAIN, "double", {"number": 1})) + _pickled({"deadline": "soon"}), PKL),
    "a deadline below zero": (_pickled((PLAIN, "double", {"number": 1})) + _pickled({"deadline": -1.0}), PKL),
    "JSON that is no object": (b"[1, 2]", BIN),
    "JSON without a method": (b'{"service": "x"}', BIN),
    "JSON that names two services": (b'{"service": "a", "service": "b", "method": "m"}', BIN),
    "bytes that are no text": (b"\xff\xfe\xfd", BIN),
}


def test_malformed_messages_are_answered_with_an_error_and_change_nothing(router, open_pool, connect):
    pool = open_pool(actors.Plain(router))
    child = connect()
    child.call(actors.call_master, PLAIN, "double", number=1)
    before = _state(router, pool)
    for name, (data, enc) in MALFORMED.items():
        answer = child.call(actors.send_raw, mitogen.core.Blob(data), enc)
        assert "InvalidRequest" in str(answer[1]), name
    assert _state(router, pool) == before
    assert pool.statistics().refused == len(MALFORMED)
    assert child.call(actors.call_master, PLAIN, "double", number=1) == 2


def test_a_context_named_in_a_request_does_not_enter_the_router(router, open_pool, connect):
    pool = open_pool(actors.Plain(router))
    child = connect()
    before = _state(router, pool)
    request = _pickled((PLAIN, "double", {"number": mitogen.core.Context(None, 987654, "made up")}))
    assert "got Context" in child.call(actors.send_raw, mitogen.core.Blob(request), PKL)[1]
    assert _state(router, pool) == before


def test_unauthorised_calls_change_nothing(router, open_pool, connect):
    pool = open_pool(actors.Plain(router))
    child = connect()
    child.call(actors.call_master, PLAIN, "double", number=1)
    before = _state(router, pool)
    assert "Unauthorized" in child.call(actors.call_master, PLAIN, "for_parents")
    for number in range(50):
        assert "NotActivated" in child.call(actors.call_master, f"made.up.Service{number}", "method")
        assert "InvalidRequest" in child.call(actors.call_master, PLAIN, f"method{number}")
    assert _state(router, pool) == before


def _state(router, pool):
    return (
        sorted(router._context_by_id), sorted(router._handle_map), sorted(pool._roster._invokers), len(pool.pending),
        sorted(pool._lanes._lanes), len(pool_threads()), len(pool._roster.fast_replies),
    )


def test_a_dead_message_does_not_end_a_thread(router, open_pool, connect):
    open_pool(actors.Plain(router), size=1)
    child = connect()
    for _ in range(5):
        child.call(actors.pretend_dead)
    assert child.call(actors.call_master, PLAIN, "double", number=1) == 2


def test_requests_in_json_are_served_without_unpickling(router, open_pool, connect):
    open_pool(actors.Plain(router), actors.Serialized(router))
    child = connect()
    request = json.dumps({"service": PLAIN, "method": "double", "arguments": {"number": 4}, "deadline": 5}).encode()
    assert child.call(actors.send_raw, mitogen.core.Blob(request), BIN) == (PKL, 8)
    request = json.dumps({"service": "service_actors.Serialized", "method": "listing"}).encode()
    assert child.call(actors.send_raw, mitogen.core.Blob(request), BIN) == (PKL, [])


def test_a_pool_can_be_told_to_unpickle_nothing_a_target_sends(router, open_pool, connect):
    pool = open_pool(actors.Plain(router), actors.Expensive(router), unpickle=AllowParents())
    child = connect()
    assert "only JSON" in child.call(actors.call_master, PLAIN, "double", number=4)
    huge = b"\x80\x02Nr\xff\xff\xff\x3f."  # asks for a memo of 2**30 entries
    assert "only JSON" in child.call(actors.send_raw, mitogen.core.Blob(huge), PKL)[1]
    for service, method, arguments in ((PLAIN, "double", {"number": 4}), (EXPENSIVE, "produce", {"key": 1})):
        request = json.dumps({"service": service, "method": method, "arguments": arguments}).encode()
        answers = [child.call(actors.send_raw, mitogen.core.Blob(request), BIN) for _ in range(3)]
        assert answers == [(PKL, 8 if service == PLAIN else {"key": 1, "execution": 1})] * 3
    assert call(router.myself(), PLAIN, "double", number=4) == call(pool, PLAIN, "double", number=4) == 8


@given(st.binary(max_size=200), st.sampled_from([PKL, BIN]))
@settings(deadline=None, max_examples=300)
def test_no_bytes_make_the_decoder_fail_otherwise_than_with_invalid_request(data, enc):
    message = mitogen.core.Message(data=data, enc=enc)
    encoding.service_name_of(message)
    try:
        encoding.decode_request(message)
    except InvalidRequest:
        pass


_REQUEST = encoding.encode_request(PLAIN, "echo", {"value": [1, "two", b"three", None]}, deadline=1.5).data


@given(st.lists(st.tuples(st.integers(0, len(_REQUEST) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_requests_are_refused_or_still_well_formed(changes):
    data = bytearray(_REQUEST)
    for position, value in changes:
        # not into an opcode that asks for memory: the unpickler would get it (Pool's argument unpickle is for that)
        if data[position] not in b"rq" and value not in b"rj":
            data[position] = value
    message = mitogen.core.Message(data=bytes(data), enc=PKL)
    try:
        found = encoding.decode_request(message)
        assert isinstance(found.service, str) and isinstance(found.kwargs, dict)
    except InvalidRequest:
        pass


_ARGUMENTS = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=50),
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(st.text(max_size=30), st.text(max_size=10), _ARGUMENTS, st.none() | st.floats(0.1, 1000))
@settings(deadline=None)
def test_what_is_encoded_is_decoded_and_the_service_can_be_read_off_the_front(service, method, kwargs, deadline):
    encoded = encoding.encode_request(service, method, kwargs, deadline)
    message = mitogen.core.Message(data=encoded.data, enc=encoded.enc)
    assert encoding.decode_request(message) == (service, method, kwargs, deadline)
    assert encoding.service_name_of(message) == service
    assert mitogen.core.Message(data=encoded.data, enc=encoded.enc).unpickle() == (service, method, kwargs)


def test_a_result_larger_than_a_message_may_be_is_an_error(router, open_pool, local):
    open_pool(actors.Plain(router))
    child = local()
    router.max_message_size = 100_000
    assert "larger than a message" in child.call(actors.call_master, PLAIN, "blob", size=300_000)
    assert call(None, PLAIN, "double", number=1) == 2
