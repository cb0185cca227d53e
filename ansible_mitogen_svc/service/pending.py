# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The requests a pool has accepted and not answered: their number, their bytes, and the limits on both.

Used by the broker thread (add), pool threads (remove), the deadline thread and whoever closes the pool. One lock,
held for a few dictionary operations; nothing is called while it is held.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, List, Optional

from .errors import InvalidRequest, Overloaded, ShuttingDown

if TYPE_CHECKING:
    from .request import Request


@dataclass(frozen=True)
class Limits:
    """What a pool accepts before it answers Overloaded."""

    #: unanswered requests of all callers: queued, running, or waiting for another's answer
    pending: int = 20_000
    #: unanswered requests of one context, so that a single target cannot shut the others out (own calls do not count)
    pending_per_context: int = 5_000
    #: bytes of all unanswered requests' messages
    pending_bytes: int = 64 * 1024 * 1024
    #: bytes of one request's message; a larger one is refused, not queued
    request_bytes: int = 16 * 1024 * 1024


class PendingRequests:
    """See the module's text."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.overloaded = 0
        self._lock = threading.Lock()
        self._requests: "Dict[Request, None]" = {}
        self._per_context: Dict[int, int] = {}
        self._bytes = 0
        self._closed_because: Optional[str] = None
        #: called with a request whose ``expires`` was set; the pool's clock
        self.watch: "Callable[[Request], None]" = _ignore

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, request: "Request") -> bool:
        return request in self._requests

    @property
    def bytes(self) -> int:
        """Bytes of the messages of all unanswered requests."""
        return self._bytes

    def add(self, request: "Request") -> None:
        """Accept *request*. Raises Overloaded, ShuttingDown, or InvalidRequest for an oversized one."""
        limits = self.limits
        if request.size > limits.request_bytes:
            raise InvalidRequest(f"the request is too large: {request.size} bytes, at most {limits.request_bytes}")
        with self._lock:
            if self._closed_because is not None:
                raise ShuttingDown(self._closed_because)
            of_context = self._per_context.get(request.context_id, 0)
            if (
                len(self._requests) >= limits.pending
                or (of_context >= limits.pending_per_context and request.message is not None)
                or self._bytes + request.size > limits.pending_bytes
            ):
                self.overloaded += 1
                raise Overloaded(
                    f"overloaded: {len(self._requests)} calls ({self._bytes} bytes) wait for an answer, "
                    f"{of_context} of them of this caller"
                )
            self._requests[request] = None
            self._per_context[request.context_id] = of_context + 1
            self._bytes += request.size

    def remove(self, request: "Request") -> bool:
        """Take *request* out. True for exactly one caller: that one delivers the answer."""
        with self._lock:
            return self._remove(request)

    def of_context(self, context_id: int) -> "List[Request]":
        """Take out and return the requests of one context."""
        with self._lock:
            if context_id not in self._per_context:
                return []
            gone = [request for request in self._requests if request.context_id == context_id]
            for request in gone:
                self._remove(request)
            return gone

    def close(self, reason: str) -> None:
        """Accept nothing any more."""
        with self._lock:
            self._closed_because = self._closed_because or reason

    def all(self) -> "List[Request]":
        """A copy of the list of requests."""
        with self._lock:
            return list(self._requests)

    def _remove(self, request: "Request") -> bool:
        if request not in self._requests:
            return False
        del self._requests[request]
        self._bytes -= request.size
        left = self._per_context[request.context_id] - 1
        if left:
            self._per_context[request.context_id] = left
        else:
            del self._per_context[request.context_id]
        return True


def _ignore(request: "Request") -> None:
    """There is no clock yet."""
