# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A target that speaks the protocol and lies: what it cannot get from the controller, nor from other targets.

The attacker is a Python in a connection of its own that talks mitogen by hand.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import time
import zlib
from collections.abc import Callable, Sequence

import mitogen.core
import mitogen.master
import pytest

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.closed_router import close_router
from ansible_mitogen_svc.controller.payload import Payload
from ansible_mitogen_svc.controller.session import Session
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services.answers import read_answer
from ansible_mitogen_svc.services.connection import ConnectionService
from ansible_mitogen_svc.services.file import Damaged, FileService, SourceChanged
from ansible_mitogen_svc.services.link import PendingAnswer, TargetLost
from ansible_mitogen_svc.services.module_cache import ModuleCacheService
from ansible_mitogen_svc.wire import frames

Connect = Callable[[str], Target]


def asked_by(session: Session, context_id: int, handle: int, data: bytes, enc: int) -> mitogen.core.Message:
    """The answer to a message that arrives on the stream of a target, as if that target had sent it."""
    answers: list[mitogen.core.Message] = []
    arrived = session.router.broker
    reply_to = 424242

    def send() -> None:
        stream = session.router.stream_by_id(context_id)
        original = stream.protocol._send

        def intercept(message: mitogen.core.Message) -> None:
            if message.handle == reply_to:
                answers.append(message)
            else:
                original(message)

        stream.protocol._send = intercept
        message = mitogen.core.Message(
            dst_id=0, src_id=context_id, auth_id=context_id, handle=handle, reply_to=reply_to, data=data, enc=enc
        )
        message.router = session.router
        session.router._async_route(message, stream)

    arrived.defer_sync(send)
    for _ in range(500):
        if answers:
            return answers[0]
        time.sleep(0.01)
    raise AssertionError("no answer")


def call(session: Session, context_id: int, name: str, method: str, /, **arguments: object) -> mitogen.core.Message:
    request = {"service": name, "method": method, "arguments": arguments}
    data = json.dumps(request).encode()
    return asked_by(session, context_id, mitogen.core.CALL_SERVICE, data, mitogen.core.Message.ENC_BIN)


def offered_to_first(session: Session, connect: Connect, payload: Payload) -> tuple[Target, Target]:
    first, second = connect("first"), connect("second")
    session.offer(payload.manifest, first.context_id)
    return first, second


def test_a_target_gets_the_code_that_was_offered_to_it(session: Session, connect: Connect, ping: Payload) -> None:
    first, _ = offered_to_first(session, connect, ping)
    answer = call(session, first.context_id, ModuleCacheService.name(), "fetch", sha256=[ping.manifest.id])
    _, blobs = frames.unpack_payload(answer.data)
    assert blobs == [ping.manifest.text]


def test_a_target_does_not_get_code_that_was_offered_to_another(
    session: Session, connect: Connect, ping: Payload
) -> None:
    first, second = offered_to_first(session, connect, ping)
    digest = next(iter(ping.manifest.files))
    call(session, first.context_id, ModuleCacheService.name(), "fetch", sha256=[digest])
    answer = call(session, second.context_id, ModuleCacheService.name(), "fetch", sha256=[digest])
    with pytest.raises(mitogen.core.CallError, match="Unauthorized"):
        answer.unpickle()


@pytest.mark.parametrize(
    ("name", "method", "arguments"),
    [
        (ConnectionService.name(), "connect", {"key": "k", "name": "n", "command": {"argv": ["id"]}, "timeout": 1.0}),
        (ConnectionService.name(), "disconnect", {"key": "k"}),
        (ModuleCacheService.name(), "offer_from_worker", {"manifest": "m", "text": "", "files": {}, "digests": [],
                                                         "context_id": 1}),
        (FileService.name(), "fetch", {"context_id": 1, "source": "/etc/shadow", "destination": "/tmp/x"}),
        (FileService.name(), "put", {"context_id": 1, "source": "/etc/shadow", "mode": 0,
                                     "destination": "/tmp/x"}),
        ("os", "system", {"command": "true"}),
    ],
)
def test_a_target_may_not_call_what_is_for_workers(
    session: Session, connect: Connect, name: str, method: str, arguments: dict[str, object]
) -> None:
    answer = call(session, connect("first").context_id, name, method, **arguments)
    with pytest.raises(mitogen.core.CallError):
        answer.unpickle()


@pytest.mark.parametrize("handle", [mitogen.core.GET_MODULE, mitogen.core.GET_RESOURCE])
def test_a_target_gets_no_source_of_the_controller_from_mitogens_importer(
    session: Session, connect: Connect, handle: int
) -> None:
    answer = asked_by(
        session, connect("first").context_id, handle, b"ansible_mitogen_svc.controller.session",
        mitogen.core.Message.ENC_MGC,
    )
    assert answer.is_dead


def sent_by(session: Session, context_id: int, handle: int, data: bytes, repeats: int = 1) -> None:
    """Have messages arrive on the stream of a target that nobody answers, and be handled."""

    def send() -> None:
        for _ in range(repeats):
            message = mitogen.core.Message(dst_id=0, src_id=context_id, auth_id=context_id, handle=handle, data=data)
            message.router = session.router
            session.router._async_route(message, session.router.stream_by_id(context_id))

    session.router.broker.defer_sync(send)


def test_what_mitogens_router_does_for_children_is_all_refused() -> None:
    broker = mitogen.master.Broker(install_watcher=False)
    try:
        router = mitogen.master.Router(broker)
        by_itself = dict(router._handle_map)
        close_router(router)
        assert not [handle for handle, known in by_itself.items() if router._handle_map[handle][1] == known[1]]
        worker = mitogen.master.Router(broker)
        by_itself = dict(worker._handle_map)
        close_router(worker, follows_parent=True)
        left = [handle for handle, known in by_itself.items() if worker._handle_map[handle][1] == known[1]]
        assert left == [mitogen.core.DEL_ROUTE]
    finally:
        broker.shutdown()
        broker.join()


def test_a_target_cannot_say_where_contexts_of_others_are_to_be_found(session: Session, connect: Connect) -> None:
    hostile = connect("hostile")
    for ahead in range(1, 20):
        sent_by(session, hostile.context_id, mitogen.core.ADD_ROUTE, b"%d:mine" % (hostile.context_id + ahead))
    other = connect("other")
    sent_by(session, hostile.context_id, mitogen.core.DEL_ROUTE, b"%d" % other.context_id)

    def hang_up(target: Target) -> None:
        stream = session.router.stream_by_id(target.context_id)
        session.router.broker.defer_sync(lambda: stream.on_disconnect(session.router.broker))

    hang_up(hostile)
    assert other.alive and other.call(1, {"op": "ping"}, timeout=30)
    again = connect("hostile")
    hang_up(other)
    sent_by(session, again.context_id, mitogen.core.ADD_ROUTE, b"%d:mine" % other.context_id)
    assert session.router.stream_by_id(other.context_id) is None


def test_a_target_gets_no_numbers_of_contexts(session: Session, connect: Connect) -> None:
    target = connect("first")
    before = session.router.id_allocator.allocate()
    sent_by(session, target.context_id, mitogen.core.ALLOCATE_ID, b"", repeats=100)
    assert session.router.id_allocator.allocate() == before + 1


def test_what_a_target_logs_goes_where_mitogens_messages_go_and_cannot_write_on_a_terminal(
    session: Session, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("ansible_mitogen_svc.controller.session.display.debug", told.append)
    target, before = connect("first"), len(logging.root.manager.loggerDict)
    sent_by(session, target.context_id, mitogen.core.FORWARD_LOG, b"chosen\x0050\x00\x1b[31mred\nline" + b"x" * 99999)
    sent_by(session, target.context_id, mitogen.core.FORWARD_LOG, b"no level")
    assert len(logging.root.manager.loggerDict) == before and not logging.getLogger("mitogen").propagate
    assert {record.name for record in caplog.records} <= {"mitogen.target"}
    assert len(told) == 2 and "[31mred line" in told[0] and told[0].isprintable() and len(told[0]) < 3000


def test_a_target_cannot_reach_another_target(session: Session, connect: Connect) -> None:
    first, second = connect("first"), connect("second")
    reached: list[object] = []

    def send() -> None:
        stream = session.router.stream_by_id(first.context_id)
        other = session.router.stream_by_id(second.context_id)
        original = other.protocol._send
        other.protocol._send = lambda message: (reached.append(message), original(message))
        message = mitogen.core.Message(
            dst_id=second.context_id, src_id=first.context_id, auth_id=first.context_id, handle=frames.AGENT_HANDLE,
            data=frames.pack_target(0, frames.pack_payload({"op": "hello"})), enc=mitogen.core.Message.ENC_BIN,
        )
        session.router._async_route(message, stream)
        other.protocol._send = original

    session.router.broker.defer_sync(send)
    assert not reached


def test_a_target_cannot_pass_for_the_controller(session: Session, connect: Connect) -> None:
    first, second = connect("first"), connect("second")
    served: list[object] = []
    handle = session.router.add_handler(served.append, policy=mitogen.core.has_parent_authority)

    def send() -> None:
        stream = session.router.stream_by_id(first.context_id)
        for forged in (0, second.context_id):
            message = mitogen.core.Message(dst_id=0, src_id=forged, auth_id=forged, handle=handle)
            session.router._async_route(message, stream)

    session.router.broker.defer_sync(send)
    assert not served


@pytest.mark.parametrize("dead", [False, True], ids=["an answer", "the news that none will come"])
def test_a_target_cannot_answer_for_another_one(session: Session, connect: Connect, dead: bool) -> None:
    first, second = connect("first"), connect("second")
    question = frames.pack_target(first.login_number, frames.pack_payload({"op": "execute", "argv": ["sleep", "2"]}))
    pending = session._link.ask(first.context_id, question)
    handle = max(session.router._handle_map)

    def send() -> None:
        forged = mitogen.core.Message.dead("gone") if dead else mitogen.core.Message(data=b"forged")
        forged.dst_id, forged.handle, forged.src_id, forged.auth_id = 0, handle, second.context_id, second.context_id
        session.router._async_route(forged, session.router.stream_by_id(second.context_id))

    session.router.broker.defer_sync(send)
    assert read_answer(pending.get(60)).header["rc"] == 0


class LyingAgent:
    """Answers a FileService as a hostile agent might; `answers` is asked for (header, blobs) per message."""

    def __init__(self, session: Session, answers: Callable[[dict[str, object]], tuple[dict[str, object], list[bytes]]]):
        self._answers = answers
        self.service = FileService(session.router)
        self.service._link = self  # type: ignore[assignment]

    def ask(self, context_id: int, data: Sequence[bytes]) -> PendingAnswer:
        pending = PendingAnswer()
        header, _ = frames.unpack_payload(frames.split_target(b"".join(data))[1])
        pending.arrived(mitogen.core.Message(data=frames.pack_payload(*self._answers(header))))
        return pending

    def widen(self, context_id: int) -> None:
        """There are no pipes."""

    def tell(self, context_id: int, data: Sequence[bytes]) -> None:
        pass


BOMB = zlib.compress(bytes(64 << 20), 9)


@pytest.mark.parametrize(
    ("part", "refused"),
    [
        (({}, [bytes(1 << 21)]), "larger than allowed"),
        (({"z": 1 << 40}, [BOMB]), "larger than allowed"),
        (({"z": 1 << 20}, [BOMB]), "another size than it says"),
        (({"z": 10}, [b"no zlib"]), "damaged"),
        (({"hole": -5}, []), "either data or a hole"),
        (({"hole": 1 << 62 | 1}, []), "either data or a hole"),
        (({"hole": 5}, [b"both"]), "either data or a hole"),
        (({}, []), "either data or a hole"),
        (({"hole": 1 << 50}, []), "larger than it was|File too large|Invalid argument"),
        (({}, [b"x" * 100]), "larger than it was"),
        (({"eof": True, "size": 10, "sha256": "0" * 64}, []), "did not arrive as it was sent"),
        (({"eof": True, "size": 0, "sha256": "", "path": "/etc/passwd"}, []), "did not arrive"),
    ],
)
def test_what_a_lying_agent_sends_for_a_file_gets_no_name_on_the_controller(
    part: tuple[dict[str, object], list[bytes]], refused: str, session: Session, connect: Connect,
    tmp_path: pathlib.Path,
) -> None:
    target = connect("first")
    place = tmp_path / "place"
    place.mkdir()
    (place / "kept").write_text("old")

    def answers(header: dict[str, object]) -> tuple[dict[str, object], list[bytes]]:
        return ({"size": 10, "mode": 0o600, "path": "/etc/passwd"}, []) if header["op"] == "send" else part

    agent = LyingAgent(session, answers)
    with pytest.raises((ValueError, OSError, SourceChanged, Damaged), match=refused):
        agent.service.fetch(target.context_id, "/there", str(place / "kept"))
    assert os.listdir(place) == ["kept"]
    assert (place / "kept").read_text() == "old"


@pytest.mark.parametrize("said", [{}, {"size": 1}, {"size": "much", "mode": 0}, {"size": 1, "mode": [4]},
                                  {"size": float("inf"), "mode": 0}, {"size": True, "mode": 0},
                                  {"size": -1, "mode": 0}, {"size": 1 << 63, "mode": 0}])
def test_a_file_that_is_announced_without_size_and_mode_is_not_fetched(
    said: dict[str, object], session: Session, connect: Connect, tmp_path: pathlib.Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    agent = LyingAgent(session, lambda header: (said, []))
    with pytest.raises(Damaged, match="/there was announced without its size and mode"):
        agent.service.fetch(connect("first").context_id, "/there", str(place / "new"))
    assert os.listdir(place) == []


def test_a_part_from_a_target_that_was_asked_for_none_is_nobodys(session: Session, connect: Connect) -> None:
    for operation in ("part", "complete", "receive", "send", "pull"):
        data = frames.pack_target(0, frames.pack_payload({"op": operation, "transfer": 1, "path": "/etc/shadow"}))
        answer = asked_by(session, connect("first").context_id, frames.AGENT_HANDLE, data, mitogen.core.Message.ENC_BIN)
        assert answer.is_dead


def test_nothing_a_target_pickles_is_unpickled(session: Session, connect: Connect, ping: Payload) -> None:
    first, _ = offered_to_first(session, connect, ping)
    request = (ModuleCacheService.name(), "fetch", mitogen.core.Kwargs({"sha256": [ping.manifest.id]}))
    message = mitogen.core.Message.pickled(request)
    answer = asked_by(session, first.context_id, mitogen.core.CALL_SERVICE, message.data, message.enc)
    with pytest.raises(mitogen.core.CallError, match="InvalidRequest|Unauthorized"):
        answer.unpickle()


def test_an_answer_that_is_no_payload_loses_the_target_and_nothing_else(session: Session, connect: Connect) -> None:
    target = connect("first")
    pending = PendingAnswer()
    pending.arrived(mitogen.core.Message(data=b"\xff\xff\xff\xffgarbage"))
    target._link = type("Lying", (), {"ask": lambda *_: pending})()  # type: ignore[assignment]
    with pytest.raises(TargetLost, match="malformed"):
        target.call(0, {"op": "hello"})
    assert service.call(session.pool, ConnectionService, "how_it_ended", context_id=0)
