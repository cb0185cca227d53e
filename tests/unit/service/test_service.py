# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Service: exposed methods, their arguments and errors, activation in a child, the Select, shutdown."""

from __future__ import annotations

import subprocess
import sys

import mitogen.core
import mitogen.service
import plain_caller
import pytest
import service_actors as actors
from patience import eventually, pool_threads

from ansible_mitogen_svc.service import (
    AllowAny,
    CallFailed,
    Error,
    InvalidRequest,
    Raw,
    Service,
    Unauthorized,
    arg_spec,
    call,
    call_async,
    expose,
)

PLAIN = "service_actors.Plain"


def test_a_child_that_has_only_mitogen_can_call_our_pool(router, open_pool, connect):
    open_pool(actors.Plain(router))
    answer, imported_ours = connect().call(plain_caller.call_with_mitogen_only, PLAIN, "double", number=21)
    assert (answer, imported_ours) == (42, False)


def test_only_exposed_methods_can_be_called(router, open_pool, connect):
    open_pool(actors.Plain(router))
    child = connect()
    for name in ("hidden", "on_shutdown", "router", "__init__", "name", "no_such_thing"):
        answer = child.call(actors.call_master, PLAIN, name)
        assert "InvalidRequest" in answer and "no exposed method" in answer


def test_stacked_policies_must_all_agree(router, open_pool, connect):
    open_pool(actors.Plain(router))
    child = connect()
    for method in ("stacked", "stacked_the_other_way"):
        answer = child.call(actors.call_master, PLAIN, method)
        assert "Unauthorized" in answer and f"{method}()" in answer
    assert child.call(actors.call_master, PLAIN, "stacked_in_agreement") == "always"


def test_a_wrong_argument_is_reported_with_its_name_and_both_types_but_not_its_value(router, open_pool, connect):
    pool = open_pool(actors.Plain(router))
    answer = connect().call(actors.call_master, PLAIN, "double", number="hunter2")
    assert "'number'" in answer and "expected int" in answer and "got str" in answer
    assert "hunter2" not in answer
    with pytest.raises(InvalidRequest, match="'number' has the wrong type, expected int, got str"):
        call(pool, PLAIN, "double", number="hunter2")


def test_a_missing_an_unknown_and_a_reserved_argument_are_reported_by_name(router, open_pool, connect):
    open_pool(actors.Plain(router))
    child = connect()
    assert "'number' is missing, expected int" in child.call(actors.call_master, PLAIN, "double")
    assert "unknown argument 'more'" in child.call(actors.call_master, PLAIN, "double", number=1, more=2)
    assert "'value' is missing" in child.call(actors.call_master, PLAIN, "echo")
    assert "'msg' is set by the framework" in child.call(actors.call_master, PLAIN, "sender_of", msg=0)


def test_no_reply_sends_nothing_back(router, open_pool, connect):
    service = actors.Plain(router)
    open_pool(service, size=1)
    answers = connect().call(
        actors.replies_until, PLAIN, ("note", {"text": "one way"}), ("double", {"number": 4}),
    )
    assert answers == [8]
    assert service.noted == ["one way"]


def test_a_refused_call_of_a_no_reply_method_is_answered(router, open_pool, connect):
    open_pool(actors.Plain(router))
    assert "'text' is missing" in connect().call(actors.call_master, PLAIN, "note")


def test_msg_is_given_to_methods_that_have_such_a_parameter_and_to_no_others(router, open_pool, connect):
    pool = open_pool(actors.Plain(router))
    child = connect()
    assert child.call(actors.call_master, PLAIN, "sender_of") == child.context_id
    assert child.call(actors.call_master, PLAIN, "without_msg") > 0
    assert call(pool, PLAIN, "sender_of") is None


def test_a_parents_first_call_imports_and_constructs_the_service_in_the_child(connect):
    child = connect()
    assert child.call(actors.modules_of_this_package)  # it imported our package with the test's module ...
    where = call(child, actors.Plain, "whereabouts", deadline=20)
    assert where["pid"] == child.call(mitogen.core.os.getpid)
    assert where["thread"].startswith("service-pool")  # ... and runs the service in a pool of ours
    assert call(child, actors.Plain, "double", number=8) == 16


def test_mitogens_own_client_starts_our_pool_in_a_child_too(connect):
    child = connect()
    where = [child.call_service(PLAIN, "whereabouts") for _ in range(3)]
    assert all(w["thread"].startswith("service-pool") for w in where)
    assert child.call_service(PLAIN, "double", number=8) == 16


def _runs(python):
    """Whether the command is there; the shims of version managers exist for Pythons that do not run."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


def test_an_older_python_can_host_a_service(router):
    names = [f"python3.{minor}" for minor in range(8, sys.version_info.minor)]
    older = next(filter(_runs, names), None)
    if older is None:
        pytest.skip(f"none of {names} is installed")
    where = call(router.local(python_path=older), actors.Plain, "whereabouts", deadline=20)
    assert where["python"] < list(sys.version_info[:2])
    assert where["thread"].startswith("service-pool")


def test_the_calls_that_made_a_child_start_its_pool_are_neither_lost_nor_doubled(connect):
    child = connect()
    calls = [call_async(child, "service_actors.Serialized", "append", caller=0, number=n) for n in range(200)]
    for pending in calls:
        pending.result(20)
    assert [number for _, number, _ in call(child, "service_actors.Serialized", "listing")] == list(range(200))
    other = connect()
    replies = [other.call_service_async(PLAIN, "double", number=n) for n in range(200)]
    assert [reply.get().unpickle() for reply in replies] == [2 * n for n in range(200)]


def test_a_child_may_not_call_a_service_its_parent_has_not_activated(router, open_pool, connect):
    open_pool()
    child = connect()
    answer = child.call(actors.call_master, "service_actors.Plain", "double", number=1)
    assert "NotActivated" in answer
    with pytest.raises(InvalidRequest):
        call(None, "service_actors.NoSuchService", "double")
    call(None, "service_actors.Plain", "double", number=1)  # the program itself activates it
    assert child.call(actors.call_master, "service_actors.Plain", "double", number=1) == 2


def test_a_name_that_is_no_service_class_is_refused_and_nothing_is_constructed(router, open_pool, connect):
    pool = open_pool()
    child = connect()
    for name in ("os.getcwd", "threading.Thread", "nodots", "no.such.module.Class", "service_actors.Never", ""):
        with pytest.raises(InvalidRequest):
            call(pool, name, "start")
        with pytest.raises(InvalidRequest):
            call(child, name, "start", deadline=20)


def test_an_error_carries_the_remote_type_message_and_traceback_without_the_class(connect):
    with pytest.raises(CallFailed) as caught:
        call(connect(), actors.Plain, "fail", deadline=20)
    assert type(caught.value) is CallFailed
    assert caught.value.type_name == "builtins.LookupError"
    assert caught.value.message == "out of order: %s"
    assert "in fail" in caught.value.traceback_text
    assert caught.value.__cause__ is None


def test_errors_of_mitogens_own_pool_are_taken_apart_alike(router, connect):
    class Upstream(mitogen.service.Service):
        @mitogen.service.expose(policy=mitogen.service.AllowAny())
        def fail(self):
            raise LookupError("out: of\norder")

    pool = mitogen.service.Pool(router, [Upstream(router)])
    try:
        failure = connect().call(actors.describe_failure, Upstream.name(), "fail")
        assert failure[:3] == ("CallFailed", "builtins.LookupError", "out: of\norder")
        assert "in fail" in failure[3]
    finally:
        pool.stop()


def test_an_error_longer_than_mitogen_takes_is_cut_and_still_arrives(router, open_pool, local):
    open_pool(actors.Plain(router))
    answer = local().call(actors.call_master, PLAIN, "fail", text="x" * 50000)
    assert answer.startswith("error: builtins.LookupError: xxx")
    assert len(answer) < 10100


def test_a_local_call_gets_the_object_itself_and_the_original_exception(router, open_pool):
    pool = open_pool(actors.Plain(router))
    thing = object()
    assert call(pool, actors.Plain, "echo", value=thing) is thing
    assert call(router.myself(), actors.Plain, "echo", value=thing) is thing
    assert call(None, actors.Plain, "echo", value=thing) is thing
    with pytest.raises(CallFailed) as caught:
        call(pool, actors.Plain, "fail")
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(CallFailed, match="SystemExit: 3"):
        call(pool, actors.Plain, "exit")
    assert call(pool, actors.Plain, "double", number=1) == 2  # the thread survived


def test_values_arrive_as_they_were(router, open_pool, connect):
    service = actors.Plain(router)
    open_pool(service)
    child = connect()
    values = (None, True, 1, 1.5, "tëxt", b"\x00\xff", [1, (2, {"a": [3]})], mitogen.core.Blob(b"\xfe"), {"k": "v"})
    for value in values:
        assert child.call(actors.call_master, PLAIN, "echo", value=value) == value
        assert call(child, PLAIN, "echo", value=value, deadline=20) == value
    assert child.call(actors.call_master, PLAIN, "blob", size=100000) == b"\x00\xff" * 50000
    raw = call(child, PLAIN, "raw", size=100000)
    assert type(raw) is Raw and raw == b"\x00\xff" * 50000


def test_a_result_that_cannot_be_sent_is_an_error_for_the_caller(router, open_pool, connect):
    open_pool(actors.Plain(router))
    assert "cannot pickle" in connect().call(actors.call_master, PLAIN, "unpicklable")


def test_receivers_can_be_added_to_a_services_select_and_removed_at_run_time(router, open_pool, connect):
    service = actors.Listener(router)
    open_pool(service, size=1)
    child = connect()
    first, second = mitogen.core.Receiver(router), mitogen.core.Receiver(router)
    service.select.add(first)
    service.select.add(second)
    child.call(actors.send_to, first.to_sender(), [1, 2])
    child.call(actors.send_to, second.to_sender(), ["a"])
    eventually(lambda: len(service.events) == 5)
    assert [data for source, data in service.events if source is first] == [1, 2, "dead"]
    assert [data for source, data in service.events if source is second] == ["a", "dead"]
    service.select.remove(first)
    child.call(actors.send_to, first.to_sender(), [3])
    child.call(actors.send_to, second.to_sender(), ["raise"])
    child.call(actors.send_to, second.to_sender(), ["after an exception"])
    eventually(lambda: len(service.events) == 9)
    assert all(source is second for source, _ in service.events[5:])
    assert ("after an exception") in [data for _, data in service.events]
    assert first.get(timeout=1).unpickle() == 3


def test_what_was_removed_from_the_select_is_not_delivered_although_it_had_announced_a_message(router, open_pool):
    plain, listener = actors.Plain(router), actors.Listener(router)
    pool = open_pool(plain, listener, size=1)
    call_async(pool, actors.Plain, "wait")
    assert plain.entered.acquire(timeout=20)
    removed, kept = mitogen.core.Latch(), mitogen.core.Latch()
    for latch in (removed, kept):
        listener.select.add(latch)
        latch.put("message")
    listener.select.remove(removed)
    plain.gate.set()
    assert listener.arrived.acquire(timeout=20)
    assert call(pool, actors.Plain, "double", number=1) == 2
    assert listener.events == [(kept, "message")]
    assert removed.get(block=False) == "message"


def test_a_latch_in_the_select_is_delivered_too(router, open_pool):
    service = actors.Listener(router)
    open_pool(service)
    latch = mitogen.core.Latch()
    service.select.add(latch)
    latch.put("from a thread")
    assert service.arrived.acquire(timeout=20)
    assert service.events == [(latch, "from a thread")]


def test_on_shutdown_runs_once_after_the_last_thread_left(router, open_pool, connect):
    service = actors.Plain(router)
    pool = open_pool(service, size=3)
    connect().call(actors.start_call, PLAIN, "wait")
    assert service.entered.acquire(timeout=20)
    assert pool.close(deadline=0.1) is False  # a method still runs
    assert service.shutdowns == []
    service.gate.set()
    eventually(lambda: service.shutdowns)
    assert len(service.shutdowns[0]) <= 1  # only the thread that runs on_shutdown itself
    eventually(lambda: not pool_threads())
    pool.close()
    assert len(service.shutdowns) == 1


def test_close_waits_and_runs_on_shutdown_when_no_thread_is_alive(router, open_pool):
    service = actors.Plain(router)
    assert open_pool(service, size=3).close() is True
    assert service.shutdowns == [[]]


def test_mistakes_in_a_declaration_are_reported_where_they_are_made():
    with pytest.raises(Error, match="instance of a Policy"):
        expose(AllowAny)
    with pytest.raises(Error, match="must be a class"):
        arg_spec({"number": "int"})


def test_a_service_of_mitogens_framework_can_be_hosted(router, open_pool, connect):
    class Upstream(mitogen.service.Service):
        @mitogen.service.expose(policy=mitogen.service.AllowAny())
        @mitogen.service.arg_spec({"number": int})
        def double(self, number, msg):
            return 2 * number

        @mitogen.service.expose(policy=mitogen.service.AllowParents())
        def secret(self):
            return "secret"

    open_pool(Upstream(router))
    child = connect()
    assert child.call(actors.call_master, Upstream.name(), "double", number=4) == 8
    assert "not authorized" in child.call(actors.call_master, Upstream.name(), "secret")


def test_unauthorized_is_told_apart_from_other_errors(router, open_pool, local):
    class ParentsOnly(Service):
        @expose(policy=actors.Never())
        def method(self):
            return 1

    open_pool(ParentsOnly(router))
    from ansible_mitogen_svc.service import encoding

    request = encoding.encode_request(ParentsOnly.name(), "method", {})
    message = mitogen.core.Message(data=request.data, enc=request.enc, handle=mitogen.core.CALL_SERVICE)
    with pytest.raises(Unauthorized):
        encoding.decode_reply(router.myself().send_async(message).get(timeout=5))
