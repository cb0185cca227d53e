# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Lets core build a module's payload around a short reference, where nobody needs the module's zip in it.

Installed by `caches.py` in place of ``_CachedModule.load``; asked for by the action mixin, in any task worker.

Theory of operation
1. For each run of a module core reads the module's zip from a file of this run, and writes it into the text of the
   payload: some 200 KB that are decoded, quoted, joined and encoded. We then take the zip out of the text again and
   find that we know it: two thirds of a millisecond for each task, and more for large modules.
2. Within `abridged`, in this thread, what is loaded has a reference instead of the zip; all else is as core has it.
   Such a payload must not leave the action mixin: its splitter takes the reference as well as the zip, and for every
   other way out `whole` puts the zip back in its place.
3. Zips are kept for the life of the process: one for each module a run uses. A file that was written anew is read anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ansible_mitogen_svc.statistics import counters

_PREFIX = "ansible_mitogen_svc-zip-"
#: What the line of the payload begins with; core writes the zip as the last argument of the wrapper's call.
_LINE = f"\nzip_data='{_PREFIX}".encode()


class _Abridged(threading.local):
    """Whether this thread wants references."""

    wanted = False


_thread = _Abridged()
#: {path: (what tells that the file is the same, what core would load with a reference in it)}
_loaded: dict[str, tuple[tuple[int, int, int], Any]] = {}
#: {reference: the zip as core encodes it}
_zips: dict[str, str] = {}


@contextlib.contextmanager
def abridged() -> Iterator[None]:
    """Have payloads built with references, by this thread."""
    before, _thread.wanted = _thread.wanted, True
    try:
        yield
    finally:
        _thread.wanted = before


def referring(core: Callable[[str], Any]) -> Callable[[str], Any]:
    """`_CachedModule.load`."""

    def load(path: str) -> Any:
        if not _thread.wanted:
            return core(path)
        status = os.stat(path)
        state = status.st_ino, status.st_size, status.st_mtime_ns
        known = _loaded.get(path)
        if known is None or known[0] != state:
            known = _loaded[path] = state, _abridge(core(path))
        counters.add("packing", "referred")
        return known[1]

    return load


def _abridge(module: Any) -> Any:
    text = module.zip_data.decode("ascii")
    reference = _PREFIX + hashlib.sha256(module.zip_data).hexdigest()
    _zips[reference] = text
    return dataclasses.replace(module, zip_data=reference.encode())


def zip_text(text: str) -> str:
    """The zip that `text` is, or refers to, in base64.

    :raises ValueError: nobody knows the reference.
    """
    if not text.startswith(_PREFIX):
        return text
    try:
        return _zips[text]
    except KeyError:
        raise ValueError(f"no zip is known as {text}") from None


def whole(payload: bytes) -> bytes:
    """The payload as core would have built it.

    :raises ValueError: nobody knows the reference in it.
    """
    start = payload.rfind(_LINE)
    if start < 0:
        return payload
    start += len(_LINE) - len(_PREFIX)
    end = payload.index(b"'", start)
    return payload[:start] + zip_text(payload[start:end].decode("ascii")).encode("ascii") + payload[end:]
