# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How a run's reports get to the files that the user named: statistics, timeline and trace. Main process."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile

_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def write_whole(path: str, text: str) -> None:
    """Write `text` to `path`: all of it or nothing, with mode 0600, in place of what was there.

    A device or pipe is written to, never replaced: as root ``/dev/null`` would be an ordinary file from then on. So is
    an open descriptor, as ``/dev/stdout`` or ``/dev/fd/N``, behind what this process has printed.

    :raises OSError: the directory does not exist or cannot be written, or the pipe has no reader or is somebody
        else's; its `filename` is `path`.
    """
    try:
        descriptor = _to_be_written_to(path)
        if descriptor is None:
            _replace(path, text)
            return
        with open(descriptor, "w", encoding="utf-8") as file:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            file.write(text)
    except OSError as error:
        # What the user named, not the temporary file.
        error.filename, error.filename2 = path, None
        raise


def _to_be_written_to(path: str) -> int | None:
    """A descriptor for what must not be replaced, or None."""
    open_one = _open_descriptor(path)
    if open_one is not None:
        # Not opened anew, which would have a place of its own in the file.
        return os.dup(open_one)
    # The machine's own links lead to devices; somebody else's are replaced like files.
    follow = os.path.realpath(os.path.dirname(os.path.abspath(path))) == "/dev" and os.path.islink(path)
    if not follow:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return None
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            return None
    # Without waiting for a pipe's reader: that would keep the run from ending.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    found = os.fstat(descriptor)
    if not follow and stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode) and _is_of_others(found):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "it is, or has become, a file or pipe of another user")
    os.set_blocking(descriptor, True)
    return descriptor


def _open_descriptor(path: str) -> int | None:
    """Which descriptor of this process has `path` as another name, or None."""
    directory, name = os.path.split(os.path.abspath(path))
    if directory in ("/dev/fd", "/proc/self/fd") and name.isdecimal():
        return int(name)
    return _STANDARD.get(os.path.join(directory, name))


def _is_of_others(found: os.stat_result) -> bool:
    return found.st_uid not in (0, os.geteuid())


def _replace(path: str, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=".ansible-svc-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
