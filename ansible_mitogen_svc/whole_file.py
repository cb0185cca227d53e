# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How a run's reports get to the files that the user named: statistics, timeline and trace. Main process."""

from __future__ import annotations

import os
import stat
import tempfile


def write_whole(path: str, text: str) -> None:
    """Write `text` to `path`: all of it or nothing, with mode 0600, in place of what was there.

    A device or pipe is written to, never replaced: as root ``/dev/null`` would be an ordinary file from then on. So
    is an open descriptor, such as ``/dev/stdout``, a link to one.

    :raises OSError: the directory does not exist or cannot be written; its `filename` is `path`.
    """
    try:
        if _is_written_to(path):
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
        else:
            _replace(path, text)
    except OSError as error:
        # What the user named, not the temporary file.
        error.filename, error.filename2 = path, None
        raise


def _is_written_to(path: str) -> bool:
    directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    link = os.readlink(path) if directory == "/dev" and os.path.islink(path) else ""
    if directory.startswith("/proc/") or link.startswith("/proc/"):
        return True
    try:
        # Somebody else's link to a device is replaced as other links are.
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)


def _replace(path: str, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=".ansible-svc-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
