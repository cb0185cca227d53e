# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A module does not hash a file whose digests are known, unless it is not that file any more."""
from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from zygote_client import Module, ZygoteProcess

from ansible_mitogen_svc.wire.file_version import version_of

Build = Callable[..., Module]
DATA = b'content\n' * 1000
KNOWN = {'sha1': hashlib.sha1(DATA).hexdigest(), 'md5': 'f' * 32}


@pytest.fixture
def copy(pair: tuple[str, str], warm: ZygoteProcess, build: Build, tmp_path: pathlib.Path) -> Any:
    def copied(change: Callable[[], object]) -> dict[str, Any]:
        source = tmp_path / 'source'
        source.write_bytes(DATA)
        module = build(pair[1], 'copy', src=str(source), dest=str(tmp_path / 'dest'))
        warm.install(module)
        known = [{'path': str(source), 'version': version_of(source.stat()), 'digests': KNOWN}]
        change()
        content = source.read_bytes()
        header = dict(module.header, manifest=module.manifest, known_files=known)
        rc, stdout, stderr = warm.call(header, [module.parameters]).outcome
        assert rc == 0, (stdout, stderr)
        assert (tmp_path / 'dest').read_bytes() == content
        return dict(json.loads(stdout))
    return copied


def nothing() -> None:
    pass


def test_digests_that_are_known_are_taken(copy: Any) -> None:
    result = copy(nothing)
    assert (result['checksum'], result['md5sum']) == (KNOWN['sha1'], KNOWN['md5'])


def test_another_version_of_the_file_is_read(copy: Any, tmp_path: pathlib.Path) -> None:
    def change() -> None:
        (tmp_path / 'source').write_bytes(DATA[1:])
    result = copy(change)
    assert result['checksum'] == hashlib.sha1(DATA[1:]).hexdigest()
    assert result['md5sum'] == hashlib.md5(DATA[1:]).hexdigest()


def test_another_file_of_the_same_size_and_time_is_read(copy: Any, tmp_path: pathlib.Path) -> None:
    def change() -> None:
        status = (tmp_path / 'source').stat()
        (tmp_path / 'other').write_bytes(DATA.upper())
        os.utime(tmp_path / 'other', ns=(status.st_atime_ns, status.st_mtime_ns))
        os.rename(tmp_path / 'other', tmp_path / 'source')
    assert copy(change)['checksum'] == hashlib.sha1(DATA.upper()).hexdigest()
