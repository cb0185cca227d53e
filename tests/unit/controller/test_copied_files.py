# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Core's copy action reads a large file once, for as long as it is the same file."""

from __future__ import annotations

import hashlib
import importlib
import os
import pathlib
import time
import types
from typing import Any

import pytest
from ansible.plugins.loader import action_loader

from ansible_mitogen_svc.controller import action_classes
from ansible_mitogen_svc.controller.compat import copied_files
from ansible_mitogen_svc.controller.compat.copied_files import sha1_of
from ansible_mitogen_svc.wire.file_version import full_version_of


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = importlib.import_module("ansible.plugins.action.copy")
    core = getattr(module.checksum, "svc_core", module.checksum)
    calls: list[Any] = []

    def counted(filename: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.append(filename)
        return core(filename, *arguments, **keywords)

    monkeypatch.setattr(module, "checksum", counted)
    monkeypatch.setattr(module, "calls", calls, raising=False)
    monkeypatch.setattr(copied_files, "_known", {})
    copied_files.install(module.ActionModule)
    return module


def file(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, content: bytes = b"x" * copied_files.LARGE + b"y") -> str:
    """A file that was written to long ago."""
    path.write_bytes(content)
    now = time.time
    monkeypatch.setattr(copied_files.time, "time", lambda: now() + 10)
    return str(path)


def test_a_large_file_is_read_once_until_it_changes(
    copy: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path / "large", monkeypatch)
    data = (tmp_path / "large").read_bytes()
    for _ in range(3):
        assert copy.checksum(path) == hashlib.sha1(data).hexdigest()
    assert len(copy.calls) == 1
    assert sha1_of(path) == (hashlib.sha1(data).hexdigest(), full_version_of(os.stat(path)))
    status = os.stat(path)
    (tmp_path / "large").write_bytes(b"z" * len(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert copy.checksum(path) == hashlib.sha1(b"z" * len(data)).hexdigest()
    assert len(copy.calls) == 2


@pytest.mark.parametrize("kind", ["new", "small", "other digest", "missing", "directory"])
def test_what_could_change_unseen_or_is_small_or_no_file_is_core_s_own_affair(
    copy: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "new":
        path = str(tmp_path / "new")
        pathlib.Path(path).write_bytes(b"x" * 2 * copied_files.LARGE)
    else:
        path = file(tmp_path / "one", monkeypatch, b"x" * copied_files.LARGE + b"x" * (kind != "small"))
    path = {"missing": "/nowhere", "directory": str(tmp_path)}.get(kind, path)
    arguments = [hashlib.md5] if kind == "other digest" else []
    first, second = (copy.checksum(path, *arguments) for _ in range(2))
    assert first == second and len(copy.calls) == 2
    assert sha1_of(path) == ("", [])


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    copy: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path / "large", monkeypatch)
    core = copy.checksum.svc_core

    def slow(filename: Any) -> Any:
        found = core(filename)
        with open(filename, "ab") as grown:
            grown.write(b"more")
        return found

    monkeypatch.setattr(copy, "checksum", slow)
    copied_files.install(copy.ActionModule)
    copy.checksum(path)
    assert sha1_of(path) == ("", [])


def test_no_more_files_are_remembered_than_the_limit(
    copy: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copied_files, "LIMIT", 3)
    for number in range(5):
        copy.checksum(file(tmp_path / str(number), monkeypatch))
    assert len(copied_files._known) == 3


def test_this_core_s_copy_asks_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = action_loader.get_with_context("copy", class_only=True).object
    module: Any = importlib.import_module(found.__module__)
    monkeypatch.setattr(module, "checksum", getattr(module.checksum, "svc_core", module.checksum))
    action_classes._accelerated_class.cache_clear()
    action_classes._accelerated_class(found)
    assert hasattr(module.checksum, "svc_core")
