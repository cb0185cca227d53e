# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a job has while it runs is given back, also where the disk is full."""
from __future__ import annotations

import errno
import os
import pathlib
import tempfile

import pytest

from ansible_mitogen_svc.target import process, slots, store


def open_descriptors() -> list[str]:
    return sorted(os.listdir('/proc/self/fd'))


def test_a_file_that_cannot_be_written_costs_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: object) -> int:
        raise OSError(28, 'No space left on device')

    before = open_descriptors()
    monkeypatch.setattr(os, 'write', write)
    with pytest.raises(OSError, match='No space left'):
        process.anonymous_file(b'data')
    monkeypatch.undo()
    assert open_descriptors() == before


@pytest.mark.parametrize('number', [errno.ENOSYS, errno.EPERM])
def test_where_the_system_refuses_files_in_memory_they_are_nameless_files_on_disk(
        number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    def refused(*unused: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'memfd_create', refused, raising=False)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    descriptor = process.anonymous_file(b'data')
    assert process.read_whole(descriptor) == b'data'
    assert os.fstat(descriptor).st_dev == tmp_path.stat().st_dev and not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_zips_of_jobs_are_removed_from_where_they_were_put(
        tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store.Store(str(tmp_path / 'store'))
    kept.make_directories()
    identity = 'a' * 64
    pathlib.Path(kept.zip_path(identity)).write_text('zip')
    zips = slots.JobZips(kept)
    first = zips.take(identity)
    before = zips.path(first)
    link = os.link

    def full(source: str, target: str) -> None:
        if os.path.dirname(target) == os.path.dirname(before):
            raise OSError(28, 'No space left on device')
        link(source, target)

    monkeypatch.setattr(os, 'link', full)
    monkeypatch.setattr(os, 'symlink', full)
    second = zips.take(identity)
    after = zips.path(second)
    assert os.path.dirname(after) != os.path.dirname(before) and os.path.exists(before) and os.path.exists(after)
    zips.give_back(first)
    assert not os.path.exists(before) and os.path.exists(after)
    zips.close()
    assert not os.path.exists(os.path.dirname(before)) and not os.path.exists(os.path.dirname(after))
