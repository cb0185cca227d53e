# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Zips that are written and read with a memory are those that `zipfile` alone writes and reads."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable

import pytest

from ansible_mitogen_svc.controller import module_zip

FILES = {"ansible/__init__.py": b"", "ansible/b.py": b"import os\n" * 900, "ä/c.py": bytes(range(256)) * 5, "d": b"x"}


def written(add: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None], compression: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for path, content in FILES.items():
            info = zipfile.ZipInfo(path, (2026, 1, 2, 3, 4, 6))
            info.compress_type = archive.compression
            add(archive, info, content)
        # Core goes on with the same object in its own way.
        archive.writestr(zipfile.ZipInfo("last", (2026, 1, 2, 3, 4, 6)), b"one more")
    return out.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
def test_a_zip_has_the_same_bytes_as_without_the_memory_the_first_time_and_the_second(compression: int) -> None:
    plain = written(lambda archive, info, content: archive.writestr(info, content), compression)
    assert written(module_zip.add, compression) == plain
    assert written(module_zip.add, compression) == plain


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_contents_are_read_the_same_with_and_without_the_memory(compression: int) -> None:
    data = written(module_zip.add, compression)
    expected = [*FILES.items(), ("last", b"one more")]
    for _ in range(2):
        found = list(module_zip.contents(data))
        assert [(path, content) for path, content, _ in found] == expected
        assert all(digest == hashlib.sha256(content).hexdigest() for _, content, digest in found)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = module_zip._Memory()
    monkeypatch.setattr(module_zip, "REMEMBERED", 10000)
    for number in range(100):
        memory.pack(str(number).encode() * 1000)
    assert len(memory._packed) == len(memory._content) < 10
