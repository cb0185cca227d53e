# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A directory of the user on the controller in which records of walks (walk_record.py) stay between runs.

Opened by the strategy for each play, in the main thread; read and written in task workers, forked ones included.

Theory of operation
1. The directory is made 0700 and is the user's own; nobody but the user and root can replace it or anything above it.
   One in which somebody else could have written is not used. What was there before, and other files in it, are
   neither changed nor removed.
2. A record's file is named by its key, starts with the sha256 of the rest, is 0600, and gets its name by a rename.
   A file that is not what it says, or is not the user's, is nothing; the next record of that key takes its place.
3. Files that were not used for `AGE` go, and then those used least recently until `LIMIT` holds. That is looked
   after once per process, when the first record is written.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import re
import secrets
import stat
import time

#: Bytes of all records; one takes some 8 KB.
LIMIT = 16 << 20
#: Seconds after its last use that a record may stay.
AGE = 30 * 86400.0
#: Seconds after which a use is noted again.
USED_STEP = 86400.0
#: Bytes that a file may have to be read.
LARGEST = 1 << 20
#: Names of records, and of those under way; whatever else is in the directory is somebody's.
_OURS = re.compile(r"(start-)?[0-9a-f]{64}|\.[0-9a-z-]{1,16}\.[0-9]+\.[0-9a-f]{8}")
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class NotPrivate(OSError):
    """The directory is not safe to use; the message says why."""


class WalkStore:
    """See the module. Any thread may use it."""

    def __init__(self, directory: str) -> None:
        """:raises NotPrivate: somebody else could write there.

        :raises OSError: it cannot be made.
        """
        self._directory = os.path.abspath(directory)
        self._tidied = False
        os.makedirs(os.path.dirname(self._directory), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
            os.chmod(self._directory, 0o700)  # whatever the umask
        _check_private(self._directory)

    def get(self, key: str) -> bytes | None:
        """The record of a key; None when there is none that can be trusted."""
        path = os.path.join(self._directory, key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb", buffering=0) as file:
                status = os.fstat(descriptor)
                if not _is_own_file(status):
                    return None
                data = file.read(LARGEST)
            if time.time() - status.st_mtime > USED_STEP:
                os.utime(path)
        except OSError:
            return None
        digest, _, record = data.partition(b"\n")
        return record if digest == hashlib.sha256(record).hexdigest().encode() else None

    def put(self, key: str, record: bytes) -> None:
        """Keep a record. Where that is impossible, it is not kept."""
        temporary = os.path.join(self._directory, f".{key[:16]}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(hashlib.sha256(record).hexdigest().encode() + b"\n" + record)
            os.rename(temporary, os.path.join(self._directory, key))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            return
        if not self._tidied:
            self._tidied = True
            self.tidy()

    def tidy(self, limit: int = LIMIT, age: float = AGE) -> None:
        """Remove what is too old, and the least recently used of what is too much."""
        now = time.time()
        kept = []
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if not _OURS.fullmatch(entry.name):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    # What has a dot in front is under way, or was left by a process that was killed.
                    oldest = age if not entry.name.startswith(".") else min(age, USED_STEP)
                    if now - status.st_mtime > oldest:
                        os.unlink(entry.path)
                    else:
                        kept.append((status.st_mtime, status.st_size, entry.path))
            excess = sum(size for _, size, _ in kept) - limit
            for _, size, path in sorted(kept):
                if excess <= 0:
                    break
                os.unlink(path)
                excess -= size
        except OSError:
            pass  # another run tidies as well, or somebody put a directory there


def _is_own_file(status: os.stat_result) -> bool:
    own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    return own and not status.st_mode & _OTHERS_MAY_WRITE


def _check_private(directory: str) -> None:
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise NotPrivate(f"{directory} is not a directory")
    if status.st_uid != os.geteuid():
        raise NotPrivate(f"{directory} belongs to another user")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise NotPrivate(f"{directory} can be written by others")
    above = os.path.realpath(os.path.dirname(directory))
    while True:
        status = os.lstat(above)
        if status.st_uid not in (0, os.geteuid()):
            raise NotPrivate(f"{above} belongs to another user")
        others = status.st_mode & _OTHERS_MAY_WRITE and not status.st_mode & stat.S_ISVTX
        if others and (status.st_mode & stat.S_IWOTH or not _is_alone(status.st_gid)):
            raise NotPrivate(f"{above} can be written by others")
        if above == os.path.dirname(above):
            return
        above = os.path.dirname(above)


def _is_alone(gid: int) -> bool:
    """Whether a group has no member but the effective user: a directory of such a group is not open to others."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
