# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Two runs in one question, seen from the controller: what is sent, what is left to be sent, what answers mean."""

from __future__ import annotations

import os
import pathlib
import types
from typing import Any

import pytest
from ansible.plugins.action.copy import ActionModule as CoreCopy

from ansible_mitogen_svc.controller.identity import CodeRefused
from ansible_mitogen_svc.controller.one_trip import COPY, FILE, Foreseen, OneTripCopyAction
from ansible_mitogen_svc.controller.pair import HeldRun, NotSent
from ansible_mitogen_svc.controller.steps import Steps
from ansible_mitogen_svc.controller.target import Hello, Zygote
from ansible_mitogen_svc.services.answers import Answer, JobRefused, ZygoteGone, ZygoteLost, read_second
from ansible_mitogen_svc.services.link import TargetLost
from ansible_mitogen_svc.wire import frames

HELLO = Hello(0, "root", "/root", "/bin/sh", (3, 11, 2), "/usr/bin/python3", frozenset())
FIRST = {"rc": 0, "signal": None}


@pytest.mark.parametrize("second", [5, [], "text", {"rc": 0}])
def test_an_answer_that_is_none_loses_the_target_or_is_no_second(second: object) -> None:
    answer = Answer({**FIRST, "second": second}, [b"out", b"err"])
    if isinstance(second, dict):
        assert read_second(answer)[1] is None
    else:
        with pytest.raises(TargetLost):
            read_second(answer)
    with pytest.raises(TargetLost):
        read_second(Answer({**FIRST, "second": {"rc": 0}}, [b"out", b"err", b"out"]))


def test_a_second_that_was_lost_after_it_began_is_not_one_that_was_not_begun() -> None:
    blobs = [b"out", b"err"]
    refused = {"error": {"type": "ManifestLost", "message": "gone"}}
    assert read_second(Answer({**FIRST, "second": refused}, blobs)) == (Answer(FIRST, blobs), None)
    assert read_second(Answer(FIRST, blobs)) == (Answer(FIRST, blobs), None)
    with pytest.raises(JobRefused, match="what it has done is not known"):
        lost = {"error": {"type": "ChildLost", "message": "what it has done is not known"}}
        read_second(Answer({**FIRST, "second": lost}, blobs))


def held(number: int) -> HeldRun:
    waiting = Steps()
    waiting.add("tmpdir", "/tmp/x", 0o700)
    target: Any = object()
    condition = {"sha1": "0", "same": True}
    return HeldRun(target, Zygote(number, HELLO), {"op": "run"}, [b"parameters"], waiting, 1, condition)


@pytest.mark.parametrize("number", [1, 2])
def test_steps_go_with_the_run_they_belong_to(number: int) -> None:
    sent: dict[str, Any] = {}

    def call(target: Any, zygote: Zygote, header: Any, blobs: Any, before: Any = None, pair: Any = None) -> Answer:
        sent.update(header=header, blobs=blobs, before=before, second=frames.unpack_payload(pair[1]))
        return Answer({**FIRST, "second": FIRST}, [b"1", b"2", b"3", b"4"])

    run, more = held(number), Steps()
    more.add("put", "/tmp/x/y", 0o600, data=b"content")
    answer = run.send(call, Zygote(number, HELLO), {"op": "run"}, [b"others"], more)
    assert (run.outcome(), answer) == (Answer(FIRST, [b"1", b"2"]), Answer(FIRST, [b"3", b"4"]))
    assert run.steps_left() == Steps()
    header, blobs = sent["second"]
    if number == 1:
        assert sent["header"]["steps"] == [["tmpdir", "/tmp/x", 0o700]] and sent["before"] is None
        assert header["steps"] == [["put", "/tmp/x/y", 0o600, 1]] and blobs == [b"others", b"content"]
    else:
        writer, payload = sent["before"]
        before = frames.unpack_payload(payload)
        assert writer == 1 and before[0]["steps"] == [["tmpdir", "/tmp/x", 0o700], ["put", "/tmp/x/y", 0o600, 0]]
        assert before[1] == [b"content"] and blobs == [b"others"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("error", "left"),
    [(ZygoteGone("gone"), 1), (CodeRefused("refused", "BaseSetFailed"), 1), (ZygoteLost("lost"), 0)],
)
def test_what_goes_wrong_is_the_first_ones_and_steps_are_not_done_twice(
    error: Exception, left: int, number: int
) -> None:
    def call(*arguments: Any) -> Answer:
        raise error

    run = held(number)
    with pytest.raises(NotSent):
        run.send(call, Zygote(number, HELLO), {"op": "run"}, [b"others"], Steps())
    # Those of another zygote were done before.
    assert len(run.steps_left().steps) == (left if number == 1 else 0)
    with pytest.raises(type(error)):
        run.outcome()


def test_a_source_that_is_gone_when_it_is_read_is_no_failure_of_the_run_before_it(tmp_path: pathlib.Path) -> None:
    action: Any = object.__new__(OneTripCopyAction)
    action._svc_abridged = None
    foreseen = Foreseen(COPY, {}, "0" * 40, str(tmp_path / "gone"), "/tmp/x/.source")
    action._svc_trip_compose(foreseen, {})
    assert foreseen.result is None and action._svc_trip is foreseen


class CopyByCore(CoreCopy):  # type: ignore[misc]
    def _copy_file(self, *unused: Any) -> str:
        return "as core does"


class Copy(OneTripCopyAction, CopyByCore):
    pass


def test_a_source_whose_name_is_not_utf_8_is_left_to_core(tmp_path: pathlib.Path) -> None:
    source = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff"))
    pathlib.Path(source).write_text("content")
    action: Any = object.__new__(Copy)
    action._svc_tree_plan = None
    target = types.SimpleNamespace(latest_copy=FILE)
    action._task = types.SimpleNamespace(args={}, async_val=0, loop=None)
    action._connection = types.SimpleNamespace(svc_target=lambda: target, svc_loop_ahead=None)
    assert action._copy_file(source, "\udcff", None, None, "/tmp/x", {}, False) == "as core does"


def test_a_second_for_another_zygote_is_not_sent() -> None:
    run = held(1)
    with pytest.raises(NotSent):
        run.send(lambda *arguments: pytest.fail("sent"), Zygote(2, HELLO), {"op": "run"}, [], Steps())
    assert run.outcome() is None and len(run.steps_left().steps) == 1
