# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How much of a file may be under way, and whether compressing it pays: decided from what the link shows.

Used by the FileService, one `Window` and one `Compression` per transfer, in the pool thread that runs it; `Shares` is
common to all transfers.

Theory of operation
1. Bytes under way fill the link and wait before it; every message of a task waits behind them. Enough is bandwidth
   times delay. Both are measured: the delay when little was under way, the bandwidth from acknowledgements. A window
   is twice their product, so that it can find out whether the link takes more, within `LEAST` and `MOST`; a link
   without delay gets what it takes in `SHORTEST`, so that answers are few.
2. Transfers over one connection divide the window, transfers of one run divide `BUDGET`: memory stays bounded.
3. Compression is tried when a sample of the file shrinks (who reads it takes one, `wire/transfer.py`) and the link is
   slower than compressing would be; it stays when the file then moves faster than before.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

#: Bytes of a window: what even a slow link gets, what is begun with, and what the longest link gets.
LEAST, FIRST, MOST = 512 << 10, 1 << 20, 8 << 20
#: Seconds.
SHORTEST = 0.025
#: Bytes under way in all transfers of a run together.
BUDGET = 64 << 20
#: Bytes after which an answer is asked for.
ACKNOWLEDGE = 1 << 20
#: Bytes per second above which compressing only costs.
FAST = 60 << 20
#: Seconds and bytes that a speed is measured for.
MEASURE_SECONDS, MEASURE_BYTES = 0.3, 4 << 20


class Shares:
    """Counts the transfers under way, in all and by connection, and knows when one of them last moved. Any thread."""

    def __init__(self) -> None:
        # Guards `_running` and `_moved`.
        self._lock = threading.Lock()
        self._running: collections.Counter[int] = collections.Counter()
        #: Connection of a transfer under way -> when one of it was last answered, by the monotonic clock.
        self._moved: dict[int, float] = {}

    @contextlib.contextmanager
    def taken(self, context_id: int) -> Iterator[Callable[[], int]]:
        """Take part; gives a function that says how many bytes one transfer of the connection may have under way."""
        with self._lock:
            self._running[context_id] += 1
        self.moved(context_id)
        try:
            yield lambda: min(MOST // self._running[context_id], BUDGET // max(1, self._running.total()))
        finally:
            with self._lock:
                self._running[context_id] -= 1
                if not self._running[context_id]:
                    del self._running[context_id], self._moved[context_id]

    def moved(self, context_id: int) -> None:
        """The other end has answered a transfer that is under way."""
        self._moved[context_id] = time.monotonic()

    def is_moving(self, context_id: int, seconds: float) -> bool:
        """Whether a transfer is under way over a connection, and was begun or answered within `seconds`."""
        return time.monotonic() - self._moved.get(context_id, float("-inf")) < seconds


class Window:
    """Bytes that one transfer may have under way."""

    def __init__(self, delay: float, share: Callable[[], int]) -> None:
        """:param delay: seconds that a small message and its answer took."""
        self._delay = delay
        self._share = share
        self._acknowledged: collections.deque[tuple[float, int]] = collections.deque(maxlen=16)

    def acknowledge(self, size: int, sent: float, now: float) -> None:
        """`size` bytes have arrived, the last of them were sent at `sent`."""
        self._acknowledged.append((now, size))
        self._delay = min(self._delay, now - sent)

    def rate(self) -> float:
        """Bytes per second of late; 0.0 while nothing is known."""
        if len(self._acknowledged) < 2:
            return 0.0
        seconds = self._acknowledged[-1][0] - self._acknowledged[0][0]
        size = sum(size for _, size in self._acknowledged) - self._acknowledged[0][1]
        return size / seconds if seconds > 0 else 0.0

    @property
    def size(self) -> int:
        """Bytes."""
        rate = self.rate()
        wanted = int(2 * rate * max(self._delay, SHORTEST)) if rate else FIRST
        return max(LEAST // 4, min(max(LEAST, wanted), self._share()))


class Compression:
    """Whether the next part is compressed."""

    def __init__(self, shrinks: bool) -> None:
        """:param shrinks: what a sample says."""
        self.on = False
        #: What is still to be measured: "plain", then "compressed", then nothing.
        self._phase = "plain" if shrinks else ""
        self._plain_rate = 0.0
        self._begun: float | None = None
        self._size = 0
        self._skip = 0

    def acknowledge(self, size: int, under_way: int, now: float) -> None:
        """`size` more bytes of the file have arrived, `under_way` were sent since."""
        if not self._phase:
            return
        if self._begun is None:
            self._begun, self._skip = now, under_way
            return
        if self._skip > 0:
            # What was under way when the trial began says nothing about it.
            self._skip -= size
            self._begun = now
            return
        self._size += size
        seconds = now - self._begun
        if seconds > 0 and (seconds >= MEASURE_SECONDS or self._size >= MEASURE_BYTES):
            self._decide(self._size / seconds)

    def _decide(self, rate: float) -> None:
        if self._phase == "plain":
            self._plain_rate = rate
            self.on = rate < FAST
            self._phase = "compressed" if self.on else ""
        else:
            self.on = rate > self._plain_rate
            self._phase = ""
        self._begun, self._size = None, 0
