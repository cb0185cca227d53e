# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""sha1 of large files that are copied to hosts: computed once, where core reads a file anew for each host and task.

Core's copy action computes it to compare it with the host's file, and its copy module on the host once more. A stand-in
for the function that the action calls (`ansible.utils.hashing.checksum`, looked at in 2.19.14, 2.20.10, 2.21.5 and
2.22.0rc1) remembers what it gave, as long as the file is the version it was, by its time of change too; the FileService
then has the host compute one digest less. A file written to less than `SETTLED` seconds before it was read could be
written to once more unseen, as its times are no finer than the kernel's clock: nothing is remembered of it. Called in
task workers; any thread.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

from ansible_mitogen_svc.wire.file_version import SIZE, full_version_of

#: Files that are remembered, and bytes from which on a file is.
LIMIT, LARGE = 64, 256 << 10
#: Seconds.
SETTLED = 2.0

#: {path: (version, with its time of change; sha1)}
_known: dict[str, tuple[list[int], str]] = {}


def sha1_of(path: str) -> tuple[str, list[int]]:
    """What is remembered of a file, and the version it was then; nothing of most."""
    version, found = _known.get(os.path.realpath(path), ([], ""))
    return found, version


def install(action: type[Any]) -> None:
    """Let core's copy action ask here."""
    module: Any = sys.modules.get(action.__module__)
    if module is not None and not hasattr(module.checksum, "svc_core"):
        module.checksum = _remembering(module.checksum)


def _remembering(core: Callable[..., Any]) -> Callable[..., Any]:
    def checksum(filename: Any, *arguments: Any, **keywords: Any) -> Any:
        version = settled_version(filename) if not arguments and not keywords else None
        if version is None or version[SIZE] <= LARGE:
            return core(filename, *arguments, **keywords)
        path = os.path.realpath(os.fsdecode(filename))
        known = _known.get(path)
        if known is not None and known[0] == version:
            return known[1]
        found = core(filename)
        if isinstance(found, str) and version == settled_version(filename):
            while len(_known) >= LIMIT:
                _known.pop(next(iter(_known)), None)
            _known[path] = version, found
        return found

    checksum.svc_core = core  # type: ignore[attr-defined]
    return checksum


def settled_version(path: Any) -> list[int] | None:
    """The version of a file that was not written to of late; None for any other."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    latest = max(status.st_mtime, status.st_ctime)
    if not stat.S_ISREG(status.st_mode) or not latest + SETTLED < time.time():
        return None
    return full_version_of(status)
