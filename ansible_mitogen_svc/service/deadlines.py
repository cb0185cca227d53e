# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The thread that answers overdue requests. Started by a pool with its first request that has a deadline.

It sleeps until the earliest deadline among the pending requests, so requests answered in time cost it nothing but
that one look. It holds no reference to the pool, only to its PendingRequests.
"""

from __future__ import annotations

import threading
import time
from typing import Optional

from .errors import DeadlineExceeded
from .pending import PendingRequests
from .request import Request

#: Seconds between two looks at the pending requests: many deadlines close together cost one look.
GRANULARITY = 0.01


class DeadlineClock:
    """See the module's text."""

    def __init__(self, table: PendingRequests, thread_name: str) -> None:
        self._table = table
        self._thread_name = thread_name
        self._condition = threading.Condition()
        self._next: Optional[float] = None
        self._thread: Optional[threading.Thread] = None
        self._stopped = False

    def watch(self, request: Request) -> None:
        """Answer *request* with DeadlineExceeded at ``request.expires``, unless it was answered before."""
        with self._condition:
            if self._stopped or request.expires is None:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
                self._thread.start()
            if self._next is None or request.expires < self._next:
                self._next = request.expires
                self._condition.notify()

    def stop(self) -> None:
        """End the thread; does not wait for it."""
        with self._condition:
            self._stopped = True
            self._condition.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread after stop(), at most *timeout* seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._stopped and (self._next is None or self._next > time.monotonic()):
                    self._condition.wait(None if self._next is None else max(0.0, self._next - time.monotonic()))
                if self._stopped:
                    return
                self._next = None
            self._answer_overdue()

    def _answer_overdue(self) -> None:
        now = time.monotonic()
        earliest: Optional[float] = None
        for request in self._table.all():
            expires = request.expires
            if expires is None:
                continue
            if expires <= now:
                request.fail(DeadlineExceeded(f"no answer within {expires - request.arrived:.3g} seconds"))
                if request.invoker is not None:
                    request.invoker.abandon(request)
            elif earliest is None or expires < earliest:
                earliest = expires
        with self._condition:
            if earliest is not None and (self._next is None or earliest < self._next):
                self._next = max(earliest, now + GRANULARITY)
