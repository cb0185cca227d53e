# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Digests of files that were just fetched: the FileService computed them while they came.

Core's fetch action reads a file it has fetched twice, for sha1 and md5. Where the action is one that is known to the
last line (remote_stat.py), the two functions it calls for that get stand-ins, which know a file as long as it is the
version that was written. Called in task workers; any thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_mitogen_svc.wire.file_version import version_of

#: Files that are remembered; each is asked for twice, at once.
LIMIT = 64

_known: dict[str, tuple[list[int], dict[str, str]]] = {}


def note(path: str, version: Sequence[int], digests: Mapping[str, str]) -> None:
    """Remember a file that was written."""
    while len(_known) >= LIMIT:
        _known.pop(next(iter(_known)), None)
    _known[os.path.realpath(path)] = list(version), dict(digests)


def digest(path: Any, name: str) -> str | None:
    """The digest of a file with that name of an algorithm; None when it is not known."""
    version, digests = _known.get(os.path.realpath(os.fsdecode(path)), ([], {}))
    try:
        return digests.get(name) if version and version_of(os.stat(path)) == version else None
    except OSError:
        return None


def install(action: type[Any]) -> None:
    """Let core's fetch action ask here before it reads a file."""
    module: Any = sys.modules.get(action.__module__)
    if module is None or hasattr(module.secure_hash, "svc_core"):
        return
    secure_hash, md5 = module.secure_hash, module.md5

    def known_secure_hash(filename: Any, *arguments: Any, **keywords: Any) -> Any:
        found = digest(filename, "sha1") if not arguments and not keywords else None
        return found or secure_hash(filename, *arguments, **keywords)

    def known_md5(filename: Any) -> Any:
        return digest(filename, "md5") or md5(filename)

    known_secure_hash.svc_core = secure_hash  # type: ignore[attr-defined]
    module.secure_hash, module.md5 = known_secure_hash, known_md5
