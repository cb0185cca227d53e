# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a fetch writes takes the place of what was there only where that cannot be told from writing to it."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import threading

import pytest

from ansible_mitogen_svc.services import arrival
from ansible_mitogen_svc.services.arrival import Arrival
from ansible_mitogen_svc.wire import transfer

ROOT = pathlib.Path(__file__).resolve().parents[3]
ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
#: u::rw- u:1:rw- g::r-- m::rw- o::--- as the kernel has it: version, then (tag, permissions, id) each.
GRANT = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 6, 1), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


def fetch_to(path: pathlib.Path, content: bytes = b"new") -> int:
    """Write to it as a fetch does; gives the number of the file there then."""
    with Arrival(os.fsencode(path), 0o666) as file:
        os.write(file.descriptor, content)
        file.finish()
    assert path.read_bytes() == content
    assert not list(path.parent.glob(".svc-fetch-*"))
    return path.stat().st_ino


def in_place(path: pathlib.Path) -> bool:
    before = path.stat()
    same = fetch_to(path) == before.st_ino
    assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)
    return same


@pytest.fixture
def old(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "place").mkdir()
    path = tmp_path / "place" / "old"
    path.write_text("old")
    return path


def can_have(path: pathlib.Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"this file system has no such attribute: {error}")


def test_a_plain_file_is_replaced_and_so_is_one_with_attributes_that_can_be_given(old: pathlib.Path) -> None:
    old.chmod(0o640)
    assert not in_place(old)
    can_have(old, ACL, GRANT)
    assert not in_place(old)
    assert os.getxattr(old, ACL) == GRANT and stat.S_IMODE(old.stat().st_mode) == 0o660


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_a_file_with_bits_that_writing_takes_away_is_written_in_place(old: pathlib.Path, mode: int) -> None:
    old.chmod(mode)
    assert in_place(old)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_file_whose_group_the_directory_would_not_give_is_written_in_place(old: pathlib.Path) -> None:
    os.chown(old.parent, 0, 12345)
    old.parent.chmod(0o2755)
    assert in_place(old)
    fetch_to(old.parent / "new")
    assert (old.parent / "new").stat().st_gid == 12345


def test_a_file_does_not_inherit_what_its_directory_gives_to_new_ones_and_a_new_one_does(old: pathlib.Path) -> None:
    can_have(old.parent, DEFAULT_ACL, GRANT)
    assert not in_place(old)
    assert ACL not in os.listxattr(old)
    fetch_to(old.parent / "new")
    (old.parent / "usual").write_text("")
    assert os.getxattr(old.parent / "new", ACL) == os.getxattr(old.parent / "usual", ACL)
    assert (old.parent / "new").stat().st_mode == (old.parent / "usual").stat().st_mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_file_that_is_mounted_is_written_in_place_and_nothing_stays_open(old: pathlib.Path) -> None:
    above = old.parent.with_name("above")
    above.write_text("above, and longer than what comes")
    done = subprocess.run(["mount", "--bind", str(above), str(old)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    try:
        before = sorted(os.listdir("/proc/self/fd"))
        assert in_place(old)
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert above.read_bytes() == b"new"
    finally:
        subprocess.run(["umount", "-l", str(old)], check=True)


def test_what_fails_at_its_start_leaves_nothing_and_keeps_nothing_open(
    old: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> transfer.EarlySync:
        raise OSError(errno.EMFILE, "Too many open files")

    before = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    monkeypatch.setattr(arrival.transfer, "EarlySync", refuse)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="Too many open files"):
            Arrival(os.fsencode(old.with_name(name)), 0o666)
    assert os.listdir(old.parent) == ["old"] and old.read_text() == "old"
    for thread in threading.enumerate():
        if thread.name == "svc-digest":
            thread.join(10)
    assert (sorted(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_what_went_wrong_is_told_also_where_nothing_can_be_removed(old: pathlib.Path) -> None:
    with pytest.raises(RuntimeError, match="the true reason"), Arrival(os.fsencode(old), 0o666):
        shutil.rmtree(old.parent)
        raise RuntimeError("the true reason")


def test_a_loop_of_links_is_no_file(old: pathlib.Path) -> None:
    loop = old.with_name("loop")
    loop.symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        Arrival(os.fsencode(loop), 0o666)
    assert loop.is_symlink()


READ_ONLY = """
import os, sys, tempfile
sys.path.insert(0, sys.argv[1])
from ansible_mitogen_svc.services.arrival import Arrival
if os.geteuid() == 0:
    os.setuid(65534)
with tempfile.TemporaryDirectory() as place:
    path = os.path.join(place, 'old')
    open(path, 'w').close()
    os.chmod(path, 0o400)
    try:
        Arrival(os.fsencode(path), 0o666)
    except PermissionError as error:
        print(os.fsdecode(error.filename) == path, os.listdir(place))
"""


def test_a_file_that_this_user_may_not_write_to_is_not_replaced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(ROOT)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "True ['old']\n"
