# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Core's fetch action does not read again what was hashed while it came, unless that is another file by now."""

from __future__ import annotations

import hashlib
import importlib
import pathlib
import types

import pytest

from ansible_mitogen_svc.controller.compat import fetched_files
from ansible_mitogen_svc.wire.file_version import version_of


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = importlib.import_module("ansible.plugins.action.fetch")
    for name in ("secure_hash", "md5"):
        core = getattr(module, name)
        monkeypatch.setattr(module, name, getattr(core, "svc_core", core))
    fetched_files.install(module.ActionModule)
    return module


def test_a_file_that_was_noted_is_not_read_until_it_changes(fetch: types.ModuleType, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fetched"
    path.write_bytes(b"content")
    fetched_files.note(str(path), version_of(path.stat()), {"sha1": "a" * 40, "md5": "b" * 32})
    assert (fetch.secure_hash(str(path)), fetch.md5(str(path))) == ("a" * 40, "b" * 32)
    path.write_bytes(b"another content")
    assert fetch.secure_hash(str(path)) == hashlib.sha1(b"another content").hexdigest()
    assert fetch.md5(str(path)) == hashlib.md5(b"another content").hexdigest()


def test_a_file_that_is_gone_or_not_noted_is_cores_to_judge(fetch: types.ModuleType, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fetched"
    assert fetch.secure_hash(str(path)) is None
    path.write_bytes(b"content")
    fetched_files.note(str(path), version_of(path.stat()), {})
    assert fetch.secure_hash(str(path)) == hashlib.sha1(b"content").hexdigest()
    path.unlink()
    assert fetch.secure_hash(str(path)) is None


def test_no_more_files_are_remembered_than_the_limit(tmp_path: pathlib.Path) -> None:
    for number in range(2 * fetched_files.LIMIT):
        fetched_files.note(str(tmp_path / str(number)), [0, 0, 0, 0], {})
    assert len(fetched_files._known) <= fetched_files.LIMIT
