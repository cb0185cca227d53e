# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The way from workers inside this process to the strategy: results, item callbacks and display messages, in order.

Written by worker threads and by the main thread (inline tasks), read by the strategy's own results thread.

Theory of operation

1. Under core a worker process puts callbacks, messages and its result into one queue; the strategy's results thread
   takes them out. Plugins rely on that: callbacks of items come from one thread, messages precede the result.
2. Here they are put into a deque in memory, and the results thread is woken through core's queue by one *doorbell*: a
   wire result whose task uuid no task has. At most one is under way, so the pipe never fills and nobody waits for it.
3. The results thread hands each wire result to the strategy for conversion. The mixin's conversion recognises the
   doorbell and calls `Doorbell.answer`, which takes everything out of the deque, in order.
4. A task that sent nothing before its result saves the way through the other thread: its result is appended to
   ``strategy._results`` directly.
5. A task that may still be given to a worker of another kind (plugin_policy.py) keeps what it sends, as that worker
   begins anew: items that were skipped, or failed, would be told of twice. It does so for KEPT_SECONDS: of a task that
   takes its time something shall be seen, and then it stays where it is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

#: The task uuid of a doorbell.
DOORBELL = "ansible_mitogen_svc.doorbell"


class Doorbell:
    """One per strategy. `ring`: puts a wire result with the uuid `DOORBELL` into core's queue."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._entries: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._rung = False

    def leave(self, entry: Callable[[], None]) -> None:
        """Have `entry` called in the results thread, after everything left before. Any thread."""
        with self._lock:
            self._entries.append(entry)
            if self._rung:
                return
            self._rung = True
        self._ring()

    def answer(self) -> None:
        """Call what was left. Results thread only."""
        while True:
            with self._lock:
                if not self._entries:
                    self._rung = False
                    return
                entry = self._entries.popleft()
            entry()


#: How long a task that may be moved keeps what it sends.
KEPT_SECONDS = 0.5


class TaskReporter:
    """What the TaskExecutor of one task gets as its ``final_q``.

    :param doorbell: of the strategy.
    :param snapshot: turns the arguments of core's ``send_callback`` into (callback method name, result object as core's
        callbacks get it); called at once, in the worker, as the task goes on changing its own objects.
    :param call_back: ``TaskQueueManager.send_callback``.
    """

    def __init__(
        self,
        doorbell: Doorbell,
        snapshot: Callable[..., tuple[str, Any]],
        call_back: Callable[[str, Any], None],
    ) -> None:
        self._doorbell = doorbell
        self._snapshot = snapshot
        self._call_back = call_back
        self.used = False
        self._kept: list[Callable[[], None]] | None = []
        self._kept_since = 0.0
        #: Called before anything is sent: raises what ends the run.
        self.check: Callable[[], None] = lambda: None
        #: Called when the task has taken too long to be moved; calls `settle`.
        self.stay: Callable[[], None] = self.settle

    def leave(self, entry: Callable[[], None]) -> None:
        """Queue `entry` behind everything this task has sent."""
        self.used = True
        if self._kept is None:
            self._doorbell.leave(entry)
            return
        if not self._kept:
            self._kept_since = time.monotonic()
        self._kept.append(entry)
        if time.monotonic() - self._kept_since > KEPT_SECONDS:
            self.stay()

    def settle(self) -> None:
        """The task ends in the worker it is in: pass on what was kept. Before it has threads beside its own."""
        kept, self._kept = self._kept or (), None
        for entry in kept:
            self._doorbell.leave(entry)

    def send_callback(self, *arguments: Any) -> None:
        """Called by TaskExecutor for items, retries and async polls."""
        self.check()
        method, result = self._snapshot(*arguments)
        self.leave(lambda: self._call_back(method, result))

    def deliver(self, append: Callable[[Any], None], result: Any) -> None:
        """Hand in the final result: directly when nothing can still be on its way before it."""
        self.settle()
        if self.used:
            self.leave(lambda: append(result))
        else:
            append(result)
