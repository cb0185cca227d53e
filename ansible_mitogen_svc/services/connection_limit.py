# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How many connections may be open at once, and which one makes room for another.

Used by `connection.py`, any thread; `doctor` says with the same figures what a run will need.

Theory of operation
1. Core closes a host's connection when its task has ended; ours stays for the run. A fleet that core reaches with the
   usual 1,024 open files would not fit.
2. A task holds the connections it uses from its first use to its end: between two of its commands there may be files of
   it on the host. Of the connections that nobody holds any may be closed; the next task to that host connects again,
   as every task does under core.
3. The one that goes is drawn by lot. Hosts take turns: under linear the one that was unused for longest is the very one
   that is needed next, and closing the one used last would keep those of a finished `serial` batch for ever. Lots are
   never the worst.
4. When all are held, there is one more than the limit.
"""

from __future__ import annotations

import random
import resource
from collections import Counter
from collections.abc import Collection

#: Open files of a controller: what ansible-playbook has open anyway, and what one connection (pipes to ssh: input,
#: output, errors) and one worker process need. Counted in /proc/PID/fd of runs with 1 and 12 hosts
#: and 1 to 12 forks; the first number is three times what was found, for plugins.
FILES_AT_REST = 64
FILES_PER_HOST = 3
FILES_PER_FORK = 2
#: Connections that are kept however few files may be open.
LEAST = 4


def from_open_files(forks: int) -> int | None:
    """The most connections that the soft limit of open files has room for; None without a limit."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    return max(LEAST, (soft - FILES_AT_REST - forks * FILES_PER_FORK) // FILES_PER_HOST)


class Holders:
    """Counts who uses which connection. Not locked: the owner's lock is held around each call."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lots = random.Random()

    def hold(self, key: str) -> None:
        """One more uses the connection of a key, which need not exist yet."""
        self._counts[key] += 1

    def release(self, key: str) -> None:
        """One fewer does."""
        self._counts[key] -= 1
        if self._counts[key] <= 0:
            del self._counts[key]

    def count(self, key: str) -> int:
        """How many use the connection of a key."""
        return self._counts[key]

    def draw(self, keys: Collection[str]) -> str | None:
        """One of `keys` that nobody holds; None when there is none."""
        free = [key for key in keys if key not in self._counts]
        return self._lots.choice(free) if free else None
