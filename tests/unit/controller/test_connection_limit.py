# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""More hosts than connections may be open: with real agents on this machine."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import resource
import threading
from collections.abc import Iterator

import pytest

from ansible_mitogen_svc.controller.session import Session, SessionLifecycle
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services import connection_limit
from ansible_mitogen_svc.services.bootstrap import StartFailure
from ansible_mitogen_svc.statistics import counters
from tests.unit.controller.conftest import local_plan
from tests.unit.controller.test_session import agent_pid, alive, eventually, execute

LIMIT = 2


@pytest.fixture
def small(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session with room for two connections."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    running = Session(pool_size=8, connection_limit=LIMIT)
    yield running
    running.close()


def use(session: Session, key: str) -> Target:
    """What a task does first."""
    session.hold(key)
    return session.connect(local_plan(key), key)


def test_a_connection_that_no_task_uses_makes_room_and_is_made_again_when_it_is_needed(small: Session) -> None:
    used = {}
    for key in ("one", "two", "three", "four", "one", "three"):
        used[key] = target = use(small, key)
        assert execute(target, f"echo {key}").blobs[0] == key.encode() + b"\n"
        small.release(key)
        assert len(small.connections.context_ids()) <= LIMIT
    assert sum(target.alive for target in used.values()) <= LIMIT


def test_the_processes_of_a_closed_connection_end(small: Session) -> None:
    first = use(small, "one")
    pid = agent_pid(small, first)
    small.release("one")
    use(small, "two")
    use(small, "three")  # "two" is in use
    assert not first.alive and eventually(lambda: not alive(pid))


def test_what_the_target_was_told_without_waiting_is_done_before_its_connection_is_closed(
    small: Session, tmp_path: pathlib.Path
) -> None:
    target = use(small, "one")
    left = tmp_path / "left"
    left.mkdir()
    target.cast(target.login_number, {"op": "steps", "steps": [["remove", str(left)]]})
    small.release("one")
    use(small, "two")
    use(small, "three")
    assert not left.exists()


def test_a_connection_in_use_is_never_closed_even_when_there_are_more_than_the_limit(small: Session) -> None:
    targets = [use(small, key) for key in ("one", "two", "three", "four")]
    assert all(target.alive for target in targets)
    assert [execute(target, "echo here").blobs[0] for target in targets] == [b"here\n"] * 4
    for key in ("one", "two", "three", "four"):
        small.release(key)


def test_a_connection_that_two_tasks_use_stays_until_both_have_ended(small: Session) -> None:
    target = use(small, "one")
    use(small, "one")
    small.release("one")
    use(small, "two")
    use(small, "three")
    assert target.alive
    small.release("one")
    use(small, "four")
    assert not target.alive


def test_a_reset_gives_others_a_new_connection_and_lets_the_task_end_that_uses_the_old_one(session: Session) -> None:
    old = use(session, "one")
    pid, said = agent_pid(session, old), []
    task = threading.Thread(target=lambda: said.append(execute(old, "sleep 1; echo old").blobs[0]))
    task.start()
    session.note_use("one", "the same machine")
    session.reset_host("the same machine")
    new = use(session, "one")
    assert new.context_id != old.context_id and execute(new, "echo new").blobs[0] == b"new\n"
    task.join(60)
    assert said == [b"old\n"] and alive(pid)
    session.release("one")
    session.release("one")
    assert eventually(lambda: not alive(pid)) and new.alive


@pytest.mark.parametrize("by_the_task", [True, False])
def test_a_reset_ends_a_connection_at_once_that_no_other_task_uses(session: Session, by_the_task: bool) -> None:
    target = use(session, "one")
    pid = agent_pid(session, target)
    if by_the_task:
        session.disconnect(target)
    else:
        session.release("one")
        session.reset_host("one")
    assert not target.alive and session.connections.context_ids() == []
    assert eventually(lambda: not alive(pid))


def test_tasks_of_twelve_hosts_at_once_all_work_with_room_for_two(small: Session) -> None:
    said: list[bytes] = []

    def task(number: int) -> None:
        for turn in range(3):
            key = f"host {number}"
            said.append(execute(use(small, key), f"echo {number} {turn}").blobs[0])
            small.release(key)

    threads = [threading.Thread(target=task, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(said) == sorted(b"%d %d\n" % (number, turn) for number in range(12) for turn in range(3))


def test_what_a_forked_worker_uses_stays_open_until_the_worker_has_ended(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    lifecycle = SessionLifecycle()
    lifecycle.connection_limit = 1
    session = lifecycle.current()
    assert isinstance(session, Session)
    told, tell = os.pipe()
    go, goes = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            lifecycle.after_fork_in_child()
            worker = lifecycle.current()
            worker.hold("one")
            worker.hold("one")
            worker.connect(local_plan("one"), "one")
            os.write(tell, b"1")
            os.read(go, 1)
            lifecycle.close()
        finally:
            os._exit(0)
    try:
        assert os.read(told, 1) == b"1"
        (theirs,) = session.connections.context_ids()
        use(session, "two")
        assert theirs in session.connections.context_ids()
        os.write(goes, b"1")
        assert os.waitpid(pid, 0)[1] == 0
        assert eventually(lambda: not session.connections._workers)
        use(session, "three")
        assert theirs not in session.connections.context_ids()
    finally:
        lifecycle.close()


def test_a_start_that_failed_does_not_count(small: Session) -> None:
    for number in range(4):
        with pytest.raises(StartFailure):
            small.connect(dataclasses.replace(local_plan(f"bad {number}"), argv=(b"/bin/false",)), "bad")
    first, second = use(small, "one"), use(small, "two")
    small.release("one")
    small.release("two")
    assert first.alive and second.alive and small.connections._starting == 0


def test_without_a_setting_the_limit_of_open_files_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert connection_limit.from_open_files(forks=50) == (1024 - 64 - 100) // 3
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert connection_limit.from_open_files(forks=5) == connection_limit.LEAST
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connection_limit.from_open_files(forks=5) is None


def test_closed_connections_are_counted(small: Session) -> None:
    counters.take()
    for key in ("one", "two", "three"):
        use(small, key)
        small.release(key)
    assert [["connections", "closed for another"], 1] in counters.take()["counts"]
