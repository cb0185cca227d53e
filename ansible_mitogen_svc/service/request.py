# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""One call on its way through a pool: RemoteRequest (came in a message) and LocalRequest (own process).

1. Made by the broker thread or by a local caller's thread, entered into the pool's PendingRequests.
2. Taken by a pool thread, which decodes and runs it; or refused, dropped, or timed out before.
3. answer() and fail() may be called by several parties at once (the method's result, the deadline, the pool's
   shutdown): only the one that takes the request out of PendingRequests delivers, so a caller gets one answer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Optional

import mitogen.core

from . import encoding
from .encoding import Encoded
from .errors import CallFailed, failure_from_exception
from .pending import PendingRequests

if TYPE_CHECKING:
    from .calls import PendingCall
    from .invoker import Invoker
    from .outbox import Outbox


class Request:
    """Common part. Attributes are written by the thread that has the request at that time."""

    __slots__ = (
        "table", "service", "method", "kwargs", "message", "context_id", "size", "arrived", "expires",
        "called_with", "invoker", "__weakref__",
    )

    def __init__(self, table: PendingRequests, message: Optional[mitogen.core.Message], context_id: int) -> None:
        self.table = table
        self.message = message
        #: context that called; the own one for a local call
        self.context_id = context_id
        self.size = 0
        #: time.monotonic() seconds
        self.arrived = time.monotonic()
        #: when the caller gets DeadlineExceeded, and the caller's own share in that
        self.expires: Optional[float] = None
        self.called_with: Optional[float] = None
        self.service: Optional[str] = None
        self.method = ""
        self.kwargs: Dict[str, Any] = {}
        #: the invoker that has it, to be told when the caller is gone
        self.invoker: "Optional[Invoker]" = None

    def decode(self) -> None:
        """Fill in service, method and kwargs. Raises InvalidRequest."""

    @property
    def open(self) -> bool:
        """Whether the caller still waits for an answer of ours."""
        return self in self.table

    def answer(self, value: Any, encoded: Optional[Encoded] = None) -> None:
        """Give the caller *value*, unless it has its answer. *encoded* is the same value, when already encoded."""
        if self.table.remove(self):
            self._deliver(value, encoded)

    def fail(self, failure: CallFailed) -> None:
        """Give the caller an error, unless it has its answer."""
        if self.table.remove(self):
            self.refuse(failure)

    def close(self) -> None:
        """No answer will come from the framework: the method replies by itself, or nobody listens."""
        self.table.remove(self)

    def refuse(self, failure: CallFailed) -> None:
        """Deliver an error without regard to PendingRequests: for a request that never got there."""
        raise NotImplementedError

    def _deliver(self, value: Any, encoded: Optional[Encoded]) -> None:
        raise NotImplementedError


class RemoteRequest(Request):
    """A request that came in a message; the reply is one message to its reply handle."""

    __slots__ = ("outbox",)

    message: mitogen.core.Message

    def __init__(self, table: PendingRequests, message: mitogen.core.Message, outbox: "Outbox") -> None:
        super().__init__(table, message, message.src_id)
        self.size = len(message.data)
        self.outbox = outbox

    def decode(self) -> None:
        call = encoding.decode_request(self.message)
        self.service, self.method, self.kwargs = call.service, call.method, call.kwargs
        if call.deadline is not None:
            self.called_with = self.arrived + call.deadline

    def refuse(self, failure: CallFailed) -> None:
        self.outbox.send(self.message, encoding.encode_failure(failure))

    def _deliver(self, value: Any, encoded: Optional[Encoded]) -> None:
        if encoded is None:
            try:
                encoded = encoding.encode_value(value)
            except Exception as exc:  # pickling may raise anything; the caller must hear of it
                encoded = encoding.encode_failure(failure_from_exception(exc))
        limit = self.outbox.router.max_message_size
        if len(encoded.data) > limit:
            # the router would drop it with a note to the wrong side
            encoded = encoding.encode_failure(CallFailed(f"the result is larger than a message may be ({limit} bytes)"))
        self.outbox.send(self.message, encoded)


class LocalRequest(Request):
    """A call on the own process's pool: nothing is pickled, the caller gets the very object the method returned."""

    __slots__ = ("call",)

    def __init__(
        self, table: PendingRequests, context_id: int, service: str, method: str, kwargs: Dict[str, Any],
        call: "PendingCall",
    ) -> None:
        super().__init__(table, None, context_id)
        self.service, self.method, self.kwargs = service, method, kwargs
        self.call = call

    def refuse(self, failure: CallFailed) -> None:
        self.call.set_failure(failure)

    def _deliver(self, value: Any, encoded: Optional[Encoded]) -> None:
        self.call.set_value(value)

    def close(self) -> None:
        if self.table.remove(self):
            self.call.set_value(None)
