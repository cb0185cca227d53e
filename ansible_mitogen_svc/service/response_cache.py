# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The values a DeduplicatingInvoker keeps: bounded by number, by bytes and, if asked for, by age; least recently used
go first.

Not thread-safe: its invoker's lock guards it. Nothing here pickles or calls foreign code, so the lock is held shortly.
"""

from __future__ import annotations

import collections
import sys
import time
from typing import Any, Dict, Hashable, List, Optional

from .encoding import Encoded

#: Distinct byte strings of requests remembered per value (the same call pickled by different Pythons).
ALIASES = 4


class CachedResponse:
    """A value, its encoded reply once somebody remote asked for it, and the requests known to ask for it."""

    __slots__ = ("key", "value", "encoded", "cost", "expires", "aliases", "kept")

    def __init__(self, key: Hashable, value: Any, expires: Optional[float]) -> None:
        self.key = key
        self.value = value
        self.encoded: Optional[Encoded] = None
        self.cost = size_of(value) + size_of(key)
        #: time.monotonic() seconds
        self.expires = expires
        self.aliases: List[bytes] = []
        self.kept = False


class ResponseCache:
    """See the module's text."""

    def __init__(self, max_entries: int, max_bytes: int, max_age: Optional[float], forgotten: Dict[bytes, Any]) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.bytes = 0
        self.evicted = 0
        self._entries: "collections.OrderedDict[Hashable, CachedResponse]" = collections.OrderedDict()
        #: table of the pool from which aliases of evicted values are removed
        self._forgotten = forgotten

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Optional[CachedResponse]:
        """The value cached for *key*, now the most recently used; None when there is none or it is too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires is not None and time.monotonic() >= entry.expires:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, entry: CachedResponse) -> None:
        """Keep *entry* unless it alone is larger than the cache may be."""
        self.drop(entry.key)
        if entry.cost > self.max_bytes or self.max_entries < 1:
            return
        entry.kept = True
        self._entries[entry.key] = entry
        self.bytes += entry.cost
        self._shrink()

    def set_encoded(self, entry: CachedResponse, encoded: Encoded) -> None:
        """Keep the encoded reply as well; it counts unless it is the value itself."""
        if entry.encoded is None:
            entry.encoded = encoded
            self._grow(entry, 0 if encoded.data is entry.value else sys.getsizeof(encoded.data))

    def add_alias(self, entry: CachedResponse, data: bytes) -> bool:
        """Remember that a request of these bytes asks for *entry*. False when it is not remembered."""
        if not entry.kept or data in entry.aliases or len(entry.aliases) >= ALIASES:
            return False
        entry.aliases.append(data)
        self._grow(entry, sys.getsizeof(data))
        return entry.kept

    def keys(self) -> List[Hashable]:
        """The keys, least recently used first."""
        return list(self._entries)

    def drop(self, key: Hashable) -> bool:
        """Forget the value of *key*; whether there was one."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        entry.kept = False
        self.bytes -= entry.cost
        for alias in entry.aliases:
            self._forgotten.pop(alias, None)
        return True

    def _grow(self, entry: CachedResponse, cost: int) -> None:
        entry.cost += cost
        if entry.kept:
            self.bytes += cost
            self._shrink()

    def _shrink(self) -> None:
        while self._entries and (len(self._entries) > self.max_entries or self.bytes > self.max_bytes):
            self.drop(next(iter(self._entries)))
            self.evicted += 1


def size_of(value: Any) -> int:
    """Bytes of memory *value* holds, following the built-in containers; other objects count without their contents."""
    total, todo, seen = 0, [value], set()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if isinstance(item, dict):
            todo.extend(item.keys())
            todo.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            todo.extend(item)
    return total
