# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The file on the controller that a fetch writes.

Used by the FileService (services/file.py), in the pool thread of the transfer. What is new, or a plain file of this
user alone, gets its name when all of it has come. Everything else that may be there is written in place, as sftp and
core's local plugin do: what is no file (/dev/null), has other names, another owner or group, or attributes such as an
ACL, and what lies where nothing can be made.
"""

from __future__ import annotations

import os
import stat
import tempfile
from typing import Any

from ansible_mitogen_svc.wire import transfer
from ansible_mitogen_svc.wire.file_version import version_of


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
        self._mode = mode & ~_umask()
        self._temporary: bytes | None = None
        if _can_be_replaced(self._path):
            place = os.path.dirname(self._path)
            self.descriptor, self._temporary = tempfile.mkstemp(dir=place, prefix=b".svc-fetch-")
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self.descriptor = os.open(self._path, flags, mode)
        self._regular = stat.S_ISREG(os.fstat(self.descriptor).st_mode)
        self.digests = transfer.FileDigests()
        self._sync = transfer.EarlySync(self.descriptor) if self._regular else None

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, *exception: object) -> None:
        self.digests.close()
        if self._sync is not None:
            self._sync.close()
        os.close(self.descriptor)
        if self._temporary is not None:
            os.unlink(self._temporary)

    def finish(self) -> dict[str, Any]:
        """All has come. Gives `version` and `digests` of the file (wire/transfer.py).

        :raises OSError: it could not be written.
        """
        if self._temporary is not None:
            os.fchmod(self.descriptor, self._new_mode())
        if self._sync is not None:
            self._sync.finish()
            os.fsync(self.descriptor)
        known = {"version": version_of(os.fstat(self.descriptor)), "digests": self.digests.hexdigests()}
        if self._temporary is not None:
            os.replace(self._temporary, self._path)
            self._temporary = None
        # What is no file does not have what was written to it.
        return known if self._regular else {"version": [], "digests": {}}

    def _new_mode(self) -> int:
        """Mode of the file that is replaced, or that of a new one."""
        try:
            return stat.S_IMODE(os.stat(self._path).st_mode)
        except OSError:
            return self._mode


def _can_be_replaced(path: bytes) -> bool:
    """Whether another file can take this one's place, or the place of none, unnoticed."""
    place = os.path.dirname(path)
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        return False
    try:
        status = os.stat(path)
    except OSError:
        return True
    alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    mine = (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    return alone and mine and not _has_attributes(path)


def _has_attributes(path: bytes) -> bool:
    try:
        return bool(os.listxattr(path))
    except (OSError, AttributeError):
        return False


def _umask() -> int:
    """This process's umask; there is no way to read it but to set it, /proc apart."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
