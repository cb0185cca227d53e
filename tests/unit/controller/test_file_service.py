# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Large files through the FileService, with a real agent."""

from __future__ import annotations

import os
import pathlib
import random
import threading
from collections.abc import Callable

import pytest

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.session import Session
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services.file import CHUNK, WINDOW

Connect = Callable[[str], Target]


def begun(target: Target, path: pathlib.Path, data: bytes) -> None:
    """Write the first part of a file on the target, as the worker's own message does."""
    header = {"op": "steps", "steps": [["put", str(path), 0o666, 0]]}
    target.call(target.login_number, header, [data], timeout=30)


def put(session: Session, target: Target, source: pathlib.Path, offset: int, destination: pathlib.Path) -> int:
    return session.move_file(
        "put",
        context_id=target.context_id,
        zygote=target.login_number,
        source=str(source),
        offset=offset,
        destination=str(destination),
    )


def fetch(session: Session, target: Target, source: pathlib.Path, destination: pathlib.Path) -> int:
    return session.move_file(
        "fetch",
        context_id=target.context_id,
        zygote=target.login_number,
        source=str(source),
        destination=str(destination),
    )


@pytest.fixture
def large(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "large"
    path.write_bytes(random.Random(7).randbytes(2 * WINDOW + 3 * CHUNK + 17))
    return path


def test_a_file_of_several_windows_arrives_as_it_was(
    session: Session, connect: Connect, large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, there, back = connect("one"), tmp_path / "there", tmp_path / "back"
    data = large.read_bytes()
    begun(target, there, data[:CHUNK])
    assert put(session, target, large, CHUNK, there) == len(data) - CHUNK
    assert there.read_bytes() == data
    assert fetch(session, target, there, back) == len(data)
    assert back.read_bytes() == data


def test_a_part_that_could_not_be_written_fails_the_transfer(
    session: Session, connect: Connect, large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, there = connect("one"), tmp_path / "there"
    # No first part: every append is refused, and none of them is waited for until the end.
    with pytest.raises(service.CallFailed) as caught:
        put(session, target, large, large.stat().st_size - 2 * CHUNK, there)
    assert caught.value.type_name.endswith("JobRefused")
    begun(target, there, b"short")
    with pytest.raises(service.CallFailed, match="bytes: is the file system full"):
        put(session, target, large, large.stat().st_size - 2 * CHUNK, there)


def test_a_fetch_that_fails_leaves_what_was_there_and_no_other_file(
    session: Session, connect: Connect, tmp_path: pathlib.Path
) -> None:
    kept = tmp_path / "folder" / "kept"
    kept.parent.mkdir()
    kept.write_text("old")
    with pytest.raises(service.CallFailed, match="No such file"):
        fetch(session, connect("one"), tmp_path / "missing", kept)
    assert kept.read_text() == "old"
    assert os.listdir(kept.parent) == ["kept"]


def test_other_tasks_run_while_a_file_is_under_way(
    session: Session, connect: Connect, large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, there = connect("one"), tmp_path / "there"
    begun(target, there, b"")
    done = threading.Event()

    def transfer() -> None:
        put(session, target, large, 0, there)
        done.set()

    threading.Thread(target=transfer).start()
    answers = 0
    while not done.is_set():
        target.call(target.login_number, {"op": "ping"}, timeout=30)
        answers += 1
    assert answers >= 1
    assert there.stat().st_size == large.stat().st_size
