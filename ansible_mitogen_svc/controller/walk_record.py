# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What one walk over a module's imports looked at and found, and whether another walk would find the same now.

Made and checked by compat/module_walk.py in task workers of any kind; kept by walk_store.py.

Theory of operation
1. For `ansible.module_utils` core looks a name up in a row of directories. A record has each of those directories, and
   each package directory that a name could have meant, with what tells that entries of it came, went or were
   replaced (`place_of`). While all are as they were, the same names lead to the same paths.
2. What those paths hold is read anew each time and compared by sha256: no time stamp is trusted for content.
3. For `ansible_collections` names a record has the look-ups themselves; they are made again, by core's own code.
4. A directory that was changed less than `SETTLED` seconds before it was recorded could change again without its times
   telling; then there is no record. Nor is there one for a search through a dangling link, whose target may appear.
5. A record names files and holds digests of them, no content; it says nothing about any task.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

#: Seconds after which a further change to a directory has another time: twice the coarsest clock of a file system.
SETTLED = 4.0

#: Device, inode, modification and change time (ns) of a directory; None: there is none.
Place = tuple[int, int, int, int] | None


@dataclass(frozen=True)
class InCollection:
    """What a search in a collection found: path in the zip, and content.

    Both are compared: the same text may stand for a module or for a package.
    """

    path: str
    content: bytes

    @property
    def digest(self) -> str:
        """Names the whole."""
        return hashlib.sha256(self.path.encode() + b"\0" + self.content).hexdigest()


@dataclass(frozen=True)
class Found:
    """A file that a walk put into the zip.

    Attributes:
        name: path in the zip.
        sha256: of the content, hex.
        source: path it was read from; empty for text of core's own and for files of collections.
        text: the content itself, when core wrote it; else empty.
        lookup: number of the look-up in a collection that found it, or -1.
    """

    name: str
    sha256: str
    source: str = ""
    text: str = ""
    lookup: int = -1


@dataclass(frozen=True)
class Walk:
    """See the module.

    Attributes:
        places: directories that were searched.
        lookups: arguments of each search in a collection: (parts of the name, whether it may be an attribute, whether a
            child was redirected, whether it may be missing), and the digest of what was found, "" for nothing.
        files: in the order in which core wrote them.
    """

    places: Mapping[str, Place]
    lookups: tuple[tuple[tuple[str, ...], bool, bool, bool, str], ...]
    files: tuple[Found, ...]

    def pack(self) -> bytes:
        """As JSON, for `unpack`."""
        document = {
            "places": self.places,
            "lookups": self.lookups,
            "files": [[file.name, file.sha256, file.source, file.text, file.lookup] for file in self.files],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Walk:
        """:raises ValueError, KeyError, TypeError: `data` was not made by `pack`."""
        document = json.loads(data)
        places = {path: None if place is None else _place(place) for path, place in document["places"].items()}
        lookups = tuple((tuple(parts), a, b, c, digest) for parts, a, b, c, digest in document["lookups"])
        return cls(places, lookups, tuple(Found(*each) for each in document["files"]))

    def stands(self) -> bool:
        """Whether all directories are as they were."""
        return all(place_of(path) == place for path, place in self.places.items())


def _place(values: Iterable[int]) -> Place:
    device, inode, modified, changed = values
    return device, inode, modified, changed


def place_of(path: str) -> Place:
    """What tells whether entries of a directory came, went or were replaced since."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


class Sources:
    """Content of source files, and sha256 of what was read before. Any thread may use it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, str]] = {}

    def read(self, path: str) -> tuple[bytes, str]:
        """Content of a file as it is now, and its sha256 (hex).

        :raises OSError: it cannot be read.
        """
        with open(path, "rb", buffering=0) as file:
            content = file.read()
        known = self._known.get(path)
        if known is not None and known[0] == content:
            return known
        found = self._known[path] = content, hashlib.sha256(content).hexdigest()
        return found


class Searches:
    """Notes the searches of one walk while core makes them. One thread."""

    def __init__(self, started: float) -> None:
        """:param started: ``time.time()`` before the walk."""
        self._started = started
        self._tails: dict[str, set[str]] = {}

    def note(self, directories: Iterable[str], names: Iterable[tuple[str, ...]]) -> None:
        """`names` below module_utils, such as ("common", "text"), were looked up in `directories`."""
        for parts in names:
            for directory in directories:
                self._tails.setdefault(os.path.join(directory, *parts[:-1]), set()).add(parts[-1])

    def places(self) -> dict[str, Place] | None:
        """All places that count; None when there can be no record (see the module, 4)."""
        places: dict[str, Place] = {}
        for directory, tails in self._tails.items():
            if not os.path.isabs(directory):
                return None
            places[directory] = place_of(directory)
            for tail in tails if places[directory] is not None else ():
                package = os.path.join(directory, tail)
                if os.path.isdir(package):
                    places[package] = place_of(package)
        certain = all(self._settled(place) and (place is None or _links_lead(path)) for path, place in places.items())
        return places if certain else None

    def _settled(self, place: Place) -> bool:
        if place is None:
            return True
        changed = max(place[2:]) / 1e9
        return changed < self._started - SETTLED and time.time() >= self._started


def _links_lead(directory: str) -> bool:
    """Whether no link in a directory leads nowhere."""
    with os.scandir(directory) as entries:
        return all(not entry.is_symlink() or os.path.exists(entry.path) for entry in entries)


def contents(
    walk: Walk, sources: Sources, look_up: Callable[[tuple[str, ...], bool, bool, bool], InCollection | None]
) -> list[tuple[str, bytes]] | None:
    """Path and content of each file of a walk, as a new one would find them; None when that is not certain.

    :param look_up: makes a search in a collection; None when there is no such thing.
    :raises OSError: a file cannot be read.
    """
    if not walk.stands():
        return None
    found: list[bytes] = []
    for parts, ambiguous, redirected, optional, digest in walk.lookups:
        each = look_up(parts, ambiguous, redirected, optional)
        if (each.digest if each is not None else "") != digest:
            return None
        found.append(each.content if each is not None else b"")
    files: list[tuple[str, bytes]] = []
    for file in walk.files:
        if file.source:
            content, digest = sources.read(file.source)
            if digest != file.sha256:
                return None
        else:
            content = file.text.encode() if file.lookup < 0 else found[file.lookup]
        files.append((file.name, content))
    # A directory may have changed while its files were read.
    return files if walk.stands() else None
