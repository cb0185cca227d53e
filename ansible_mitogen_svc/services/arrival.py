# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The file on the controller that a fetch writes.

Used by the FileService (services/file.py), in the pool thread of the transfer.

1. What is new, or a plain file of this user alone, gets its name when all of it has come, with the mode, group and
   attributes (an ACL, say) of the file it replaces.
2. Where something is mounted on the very file nothing can take its name: all that has come is written to it then.
3. Everything else that may be there is written in place, as sftp and core's local plugin do: what is no file
   (/dev/null), has other names, another owner or group, attributes that nobody may give, or bits that writing takes
   away (setuid), and what lies where nothing can be made.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from ansible_mitogen_svc.wire import mounted, transfer
from ansible_mitogen_svc.wire.attributes import copy_attributes
from ansible_mitogen_svc.wire.file_version import version_of

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_PLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def may_have_holes(destination: bytes) -> bool:
    """Whether what is there, or will be, is a file; a device or a pipe has no holes."""
    try:
        return stat.S_ISREG(os.stat(destination).st_mode)
    except OSError:
        return True


class Arrival:
    """See the module. A context manager that drops what has not been finished.

    Attributes:
        descriptor: to write to.
        digests: to be computed on the way.
    """

    def __init__(self, destination: bytes, mode: int) -> None:
        """:param mode: of a new file, less the umask.

        :raises OSError: it cannot be written.
        """
        self._path = os.path.realpath(destination)
        self._replaced = _status(self._path)
        self._temporary: bytes | None = None
        self._mode = mode
        with contextlib.ExitStack() as stack:
            stack.callback(self._drop)
            self.descriptor = self._open()
            stack.callback(_close, self.descriptor)
            self._regular = stat.S_ISREG(os.fstat(self.descriptor).st_mode)
            self.digests = transfer.FileDigests()
            stack.callback(self.digests.close)
            self._sync = transfer.EarlySync(self.descriptor) if self._regular else None
            if self._sync is not None:
                stack.callback(self._sync.close)
            self._ends = stack.pop_all()

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.close()

    def finish(self) -> dict[str, Any]:
        """All has come. Gives `version` and `digests` of the file (wire/transfer.py).

        :raises OSError: it could not be written.
        """
        if self._temporary is not None and self._replaced is not None:
            os.fchmod(self.descriptor, stat.S_IMODE(self._replaced.st_mode))
        if self._sync is not None:
            self._sync.finish()
            os.fsync(self.descriptor)
        if self._temporary is not None:
            self._take_name(self._temporary)
        known = {"version": version_of(os.fstat(self.descriptor)), "digests": self.digests.hexdigests()}
        # What is no file does not have what was written to it.
        return known if self._regular else {"version": [], "digests": {}}

    def _take_name(self, temporary: bytes) -> None:
        if mounted.rename(temporary, self._path):
            self._temporary = None
            return
        self.descriptor = mounted.write_over(self.descriptor, self._path, self._mode)
        self._ends.callback(_close, self.descriptor)
        self._drop()

    def _open(self) -> int:
        replaced = self._replaced
        if replaced is None or _is_plain(replaced) and os.access(self._path, os.W_OK):
            place = os.path.dirname(self._path)
            descriptor = self._open_beside(place) if os.access(place, os.W_OK) else None
            if descriptor is not None:
                return descriptor
        return os.open(self._path, _IN_PLACE, self._mode)

    def _open_beside(self, place: bytes) -> int | None:
        """Open a file that can take the name; None where it would not be like the one that has it now."""
        path = os.path.join(place, b".svc-fetch-" + os.urandom(8).hex().encode())
        descriptor = os.open(path, _NEW, self._mode if self._replaced is None else 0o600)
        self._temporary = path
        if self._replaced is None or _resembles(descriptor, self._replaced, self._path):
            return descriptor
        os.close(descriptor)
        self._drop()
        return None

    def _drop(self) -> None:
        """Remove what has no name yet; that it cannot be removed is not what went wrong."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is_plain(status: os.stat_result) -> bool:
    """Whether it is a file with one name and without the bits that writing to it takes away."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and not status.st_mode & (stat.S_ISUID | stat.S_ISGID)


def _resembles(descriptor: int, replaced: os.stat_result, path: bytes) -> bool:
    """Whether a new file has the owner and group of the one at a path; it gets its attributes, if that can be."""
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (replaced.st_uid, replaced.st_gid):
        return False
    try:
        copy_attributes(path, descriptor)
    except OSError:
        return False
    return True


def _close(descriptor: int) -> None:
    # fsync has told already of what could not be written.
    with contextlib.suppress(OSError):
        os.close(descriptor)
