# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A finished file whose name is taken by a file that something is mounted on, as containers have it of `/etc/hosts`.

Nothing can be renamed to that name. Used by both ends of a file transfer, each as the end that writes.
"""

from __future__ import annotations

import errno
import os

from ansible_mitogen_svc.wire.transfer import PART, PartReader, PartWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Path = Union[str, bytes]


def rename(temporary: Path, path: Path) -> bool:
    """Give a file its name; return False where nothing can be renamed to that. Raises OSError."""
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        return False
    return True


def write_over(finished: int, path: Path, mode: int) -> int:
    """Write what an open file has to the one at `path`, which keeps what else it has, and return its descriptor.

    Nobody can have both names in one instant here: who reads meanwhile sees a part, as with core, which always writes
    so. `mode` is of a new file. Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        reader, writer = PartReader(finished), PartWriter(descriptor)
        while True:
            hole, data = reader.read(PART)
            if reader.ended:
                break
            writer.write({'hole': hole} if hole else {}, [] if hole else [data], PART)
        writer.finish()
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
