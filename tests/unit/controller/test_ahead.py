# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Modules of coming tasks: what is packed ahead is what core packs, and a target that got it asks for nothing."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from ansible_mitogen_svc.controller import ahead
from ansible_mitogen_svc.controller.payload import Manifest, Payload, manifest_of
from ansible_mitogen_svc.controller.session import Session
from ansible_mitogen_svc.controller.target import LOGIN, Target
from ansible_mitogen_svc.controller.workers.gate import ForkGate
from tests.unit.controller.test_session import eventually, run

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = """
import sys, tempfile, os
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import base64, payload_builder
from ansible import constants
from ansible.plugins.loader import init_plugin_loader
from ansible_mitogen_svc.controller.compat import module_build, module_walk
from ansible_mitogen_svc.controller.payload import PayloadSplitter, manifest_of
constants.DEFAULT_LOCAL_TMP = tempfile.mkdtemp()
def packed(name):
    text = base64.b64decode(payload_builder.build_all([{"module": name, "args": {}}])[0])
    return PayloadSplitter().split(text).manifest.id
names = sys.argv[3:]
plain = [packed(name) for name in names]
constants.DEFAULT_LOCAL_TMP = tempfile.mkdtemp()
assert module_build.remember_imports() and module_walk.install()
ahead = [manifest_of(module_walk.pack_ahead(os.path.join(module_walk.MODULES, name + ".py"))).id for name in names]
assert ahead == plain, (ahead, plain)
assert [packed(name) for name in names] == plain
assert module_walk.pack_ahead(os.path.join(module_walk.MODULES, "debug.py")) is None
"""


def test_what_is_packed_ahead_is_what_core_packs() -> None:
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "tests/unit/target"), str(ROOT), "ping", "copy", "setup", "apt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def new_code(payload: Payload) -> Payload:
    """The payload with a module that no store has ever seen."""
    files = {path: payload.manifest.files[digest] for path, digest in json.loads(payload.manifest.text).items()}
    path = payload.module.replace(".", "/") + ".py"
    files[path] += f"# {uuid.uuid4()}\n".encode()
    return dataclasses.replace(payload, manifest=manifest_of(files))


@pytest.fixture
def fetched(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What targets ask for."""
    digests: list[str] = []
    monkeypatch.setattr(session.module_cache, "count", digests.extend)
    return digests


def test_a_target_with_an_empty_store_asks_for_nothing_that_was_pushed(
    connect: Callable[[str], Target], ping: Payload, fetched: list[str]
) -> None:
    target = connect("a")
    zygote = target.zygote(LOGIN)
    assert zygote is not None
    zygote.known.clear()
    assert run(target, new_code(ping))["ping"] == "pong"
    assert fetched == []


def test_code_that_was_given_ahead_is_built_before_its_job_comes(
    connect: Callable[[str], Target], ping: Payload, fetched: list[str]
) -> None:
    target = connect("a")
    coming = new_code(ping)
    assert not target.give_ahead(coming.manifest)  # nobody knows yet who runs jobs there
    run(target, ping)
    del fetched[:]
    before = statistics(target)
    assert target.give_ahead(coming.manifest) and target.give_ahead(coming.manifest)
    assert eventually(lambda: statistics(target)["manifests"] == before["manifests"] + 1)
    assert statistics(target)["builds"] == before["builds"] + 1
    assert run(target, coming)["ping"] == "pong"
    assert statistics(target)["builds"] == before["builds"] + 1
    assert fetched == []


def test_a_manifest_on_disk_is_read_into_memory_ahead(connect: Callable[[str], Target], ping: Payload) -> None:
    other = new_code(ping)
    run(connect("a"), other)
    target = connect("b")
    zygote = target.zygote(LOGIN)
    assert zygote is not None and other.manifest.id in zygote.hello.manifests
    run(target, ping)
    before = statistics(target)
    target.give_ahead(other.manifest)
    assert eventually(lambda: statistics(target)["manifests"] == before["manifests"] + 1)
    assert statistics(target)["builds"] == before["builds"]


def statistics(target: Target) -> dict[str, int]:
    answer = target.call(target.login_number, {"op": "ping"}, timeout=30)
    return dict(answer.header)


def task(action: str) -> SimpleNamespace:
    return SimpleNamespace(action=action, _uuid=uuid.uuid4().hex)


def test_the_thread_stays_a_window_ahead_and_gives_what_is_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Manifest] = []
    target = SimpleNamespace(name="t", give_ahead=lambda manifest: given.append(manifest) or True)
    shipped = sorted(path.stem for path in pathlib.Path(ahead.module_walk.MODULES).glob("*.py"))
    names = [name for name in shipped if name not in {*ahead.NONE, *ahead.ALSO}][: 3 * ahead.WINDOW]
    monkeypatch.setattr(ahead.module_walk, "pack_ahead", lambda path: {path: b"code"})
    tasks = [task("ansible.builtin." + name) for name in names]
    block = SimpleNamespace(block=tasks[:5], rescue=tasks[5:], always=[task("other.collection.module"), task("debug")])
    modules = ahead.ModulesAhead([block], ForkGate(), lambda: SimpleNamespace(all_targets=lambda: [target]))
    assert modules.statistics() == 0
    modules.reached(tasks[0]._uuid)
    assert eventually(lambda: modules.statistics() == 1 + ahead.WINDOW)
    modules.reached(tasks[4]._uuid)
    assert eventually(lambda: modules.statistics() == 5 + ahead.WINDOW)
    modules.end()
    assert {path for each in given for path in json.loads(each.text)} == set(modules._paths[: 5 + ahead.WINDOW])


def test_nothing_is_packed_for_tasks_that_run_on_the_controller_only() -> None:
    tasks = [task(name) for name in ("debug", "ansible.builtin.set_fact", "include_tasks", "ansible.legacy.fail")]
    modules = ahead.ModulesAhead([SimpleNamespace(block=tasks, rescue=[], always=[])], ForkGate(), lambda: None)
    modules.reached(tasks[0]._uuid)
    assert modules._paths == [] and modules._thread is None


def test_the_thread_is_woken_once_for_all_hosts_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task("ping"), task("setup")]
    modules = ahead.ModulesAhead([SimpleNamespace(block=tasks, rescue=[], always=[])], ForkGate(), lambda: None)
    monkeypatch.setattr(modules, "_run", lambda: None)
    woken: list[None] = []
    monkeypatch.setattr(modules._state, "notify_all", lambda: woken.append(None))
    for each in (*[tasks[0]] * 16, *[tasks[1]] * 16):
        modules.reached(each._uuid)
    assert len(woken) == 2
