# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What tells one content of a file from another without reading it. Used wherever something is known of a file."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os


#: Place of the size in a version.
SIZE = 2


def version_of(status: os.stat_result) -> list[int]:
    """Where a file is, its size, and when it was written to (nanoseconds)."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def full_version_of(status: os.stat_result) -> list[int]:
    """What tells a file from itself at another time, here: with the time of its change, which nobody can set."""
    return [*version_of(status), status.st_ctime_ns]
