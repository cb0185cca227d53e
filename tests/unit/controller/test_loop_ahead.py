# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What is asked ahead in a loop of copies, and when an answer is not used. The target is a table of files."""

from __future__ import annotations

import importlib
import json
import types
from typing import Any

import pytest
from ansible.plugins.loader import shell_loader

from ansible_mitogen_svc.controller.compat.copy_action import CopyArguments, core_module_source
from ansible_mitogen_svc.controller.loop_ahead import LoopAhead, Place, loop_ahead, run_of
from ansible_mitogen_svc.controller.pair import HeldRun
from ansible_mitogen_svc.controller.payload import Manifest, Payload
from ansible_mitogen_svc.controller.steps import Steps
from ansible_mitogen_svc.controller.target import Hello, Zygote
from ansible_mitogen_svc.services.answers import Answer, JobRefused
from ansible_mitogen_svc.wire import frames

ZYGOTE = Zygote(1, Hello(0, "root", "/root", "/bin/sh", (3, 11, 2), "/usr/bin/python3", frozenset()))
RAW = {"src": "{{ item }}", "dest": "{{ place }}/", "mode": "0644"}
GOOD: dict[str, Any] = {"exists": True, "isreg": True, "isdir": False, "checksum": "same"}


class Table:
    """A target; `files` has the states that differ from GOOD, `wrong` the paths whose attributes are not right."""

    def __init__(self) -> None:
        self.jobs = 0
        self.asked: list[tuple[str, list[dict[str, Any]]]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.wrong: set[str] = set()
        self.failure: Exception | None = None

    def run(self, zygote: Zygote, header: dict[str, Any], blobs: list[bytes]) -> Answer:
        self.jobs += 1
        assert header["steps"] == []
        if self.failure is not None:
            raise self.failure
        common = json.loads(blobs[0])["ANSIBLE_MODULE_ARGS"]
        runs = [{**common, **item.get("set", {})} for item in header["items"]]
        self.asked.append((header["module"], runs))
        output = b""
        for index, arguments in enumerate(runs):
            printed = json.dumps(self.outcome(header["module"], arguments)).encode()
            output += frames.pack_frame(index, frames.pack_payload({"rc": 0}, [printed, b""]))
        return Answer({"rc": 0}, [output, b""])

    def outcome(self, module: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if module.endswith("stat"):
            return {"changed": False, "stat": self.files.get(arguments["path"], GOOD)}
        path = arguments["dest"] + arguments["_original_basename"]
        return {"changed": path in self.wrong, "path": path}


def payload(name: str) -> Payload:
    manifest = Manifest("0", b"", {"0": core_module_source(name)}, {"0": name})
    return Payload(manifest, f"ansible.modules.{name}", b"", {})


class Loop:
    """Core's part: composes the pair of an item, and sends it when its answers are not known."""

    def __init__(self, count: int = 40, raw: dict[str, Any] = RAW) -> None:
        self.items = [f"/here/f{number}" for number in range(count)]
        self.ahead = LoopAhead(self.items, raw, "item")
        self.target: Any = Table()
        self.position = -1
        self.sent: list[int] = []
        self.extra: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.zygote = ZYGOTE

    def item(self, sha1: str = "same") -> None:
        """One turn."""
        self.position += 1
        self.ahead.next_item()
        action: Any = object.__new__(importlib.import_module("ansible.plugins.action.copy").ActionModule)
        item = self.items[self.position]
        action._task = types.SimpleNamespace(args={"src": item, "dest": "/there/", "mode": "0644"})
        action._connection = types.SimpleNamespace(_shell=shell_loader.get("sh"))
        self.ahead.reached(Place(action, {"place": "/there", "item": item}))
        name = item.rpartition("/")[2]
        core = {"_ansible_check_mode": False, "_ansible_tmpdir": f"/tmp/{self.position}"}
        asked = {"path": f"/there/{name}", "get_checksum": True, **core}
        done = {**CopyArguments(action).file_arguments("/there/", item, name), **core, **self.extra}
        held = HeldRun(
            self.target, self.zygote, self.header("stat"), [self.parameters(asked)], Steps(), 1,
            {"sha1": sha1, "same": True}, payload("stat"),
        )  # fmt: skip
        second = run_of(self.zygote.number, self.header("file"), [self.parameters(done)], payload("file"))
        assert second is not None
        known = self.ahead.known(self.target, held, second)
        if known is None:
            self.sent.append(self.position)
            self.target.jobs += 1
            changed = name in map(str, self.changing)
            result = json.dumps({"changed": changed}).encode()
            self.ahead.note(self.target, Answer({"rc": 0, "signal": None}, [result, b""]))
        else:
            assert json.loads(known[1].blobs[0]) == {"changed": False, "path": f"/there/{name}"}
            assert json.loads(known[0].blobs[0])["stat"] == GOOD
        self.ahead.reached(None)

    changing: set[str] = set()

    def header(self, name: str) -> dict[str, Any]:
        module = f"ansible.modules.{name}"
        return {"op": "run", "module": module, "steps": [], "known_files": [], "environment": dict(self.environment)}

    @staticmethod
    def parameters(arguments: dict[str, Any]) -> bytes:
        return json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()


def test_items_behind_files_that_needed_nothing_are_asked_about_in_two_jobs() -> None:
    loop = Loop()
    for _ in loop.items:
        loop.item()
    assert loop.sent == [0, 1]
    assert [(module.rpartition(".")[2], len(runs)) for module, runs in loop.target.asked] == [
        ("stat", 8), ("file", 8), ("stat", 30), ("file", 30),
    ]  # fmt: skip
    assert all(run["_ansible_check_mode"] for module, runs in loop.target.asked for run in runs if "file" in module)
    paths = [run["path"] for module, runs in loop.target.asked for run in runs if "stat" in module]
    assert paths == [f"/there/f{number}" for number in range(2, 40)]


def test_answers_are_forgotten_when_anything_else_was_asked_of_the_target() -> None:
    loop = Loop()
    for _ in range(5):
        loop.item()
    assert loop.sent == [0, 1]
    loop.target.jobs += 1
    loop.item()
    assert loop.sent == [0, 1, 5]


@pytest.mark.parametrize("other", ["parameter", "environment", "identity", "content", "target"])
def test_an_answer_is_for_the_very_run_that_was_asked_about(other: str) -> None:
    loop = Loop()
    for _ in range(5):
        loop.item()
    asked = len(loop.target.asked)
    if other == "parameter":
        loop.extra = {"owner": "somebody"}
    elif other == "environment":
        loop.environment = {"HOME": "/nowhere"}
    elif other == "identity":
        loop.zygote = Zygote(2, ZYGOTE.hello)
    elif other == "target":
        loop.target, table = Table(), loop.target
        loop.target.jobs = table.jobs
    loop.item(sha1="another" if other == "content" else "same")
    if other in ("environment", "identity"):
        assert len(loop.target.asked) == asked + 2  # once more, for what it is now
    else:
        assert loop.sent == [0, 1, 5]


def test_files_that_are_gone_or_links_or_have_other_attributes_are_not_known() -> None:
    loop = Loop()
    loop.target.files = {"/there/f4": {"exists": False}, "/there/f5": {**GOOD, "isreg": False, "islnk": True}}
    loop.target.wrong = {"/there/f6"}
    for _ in range(9):
        loop.item()
    assert [number for number in loop.sent if number < 7] == [0, 1, 4, 5, 6]


def test_a_change_begins_a_new_row() -> None:
    loop = Loop()
    loop.changing = {"f1", "f3", "f5", "f7"}
    for _ in range(9):
        loop.item()
    assert not loop.target.asked


def test_a_target_that_refuses_is_not_asked_ahead_again() -> None:
    loop = Loop()
    loop.target.failure = JobRefused("no", "AccountChanged")
    for _ in range(9):
        loop.item()
    assert loop.sent == list(range(9)) and loop.target.jobs == 9 + 1


@pytest.mark.parametrize(
    "other", [{"mode": "{{ mode_of(item) }}"}, {"dest": "{{ lookup('env', 'X') }}"}, {"mode": "0600"}]
)
def test_what_cannot_be_told_without_templating_or_is_told_wrong_is_not_asked(other: dict[str, Any]) -> None:
    loop = Loop(raw={**RAW, **other})
    for _ in range(9):
        loop.item()
    assert loop.sent == list(range(9)) and not loop.target.asked


@pytest.mark.parametrize(
    ("keywords", "ahead"),
    [
        ({}, True), ({"when": ["item != 'x'"]}, True), ({"when": ["lookup('pipe', 'x')"]}, False),
        ({"vars": {"a": "{{ query('pipe', 'x') }}"}}, False), ({"label": "{{ q('pipe', 'x') }}"}, False),
        ({"pause": 1}, False), ({"pause": "{{ seconds }}"}, False), ({"args": "{{ arguments }}"}, False),
        ({"items": ["a", "b"]}, False), ({"items": None}, False),
    ],
)  # fmt: skip
def test_a_pause_or_a_lookup_between_items_may_be_meant_to_wait_for_something(
    keywords: dict[str, Any], ahead: bool
) -> None:
    items = keywords.pop("items", ["a", "b", "c"])
    control = {name: keywords.pop(name, None) for name in ("pause", "label")}
    task = types.SimpleNamespace(**{"args": RAW, **keywords}, loop_control=types.SimpleNamespace(**control))
    assert (loop_ahead(task, items) is not None) is ahead
