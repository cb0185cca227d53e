# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Questions to agents and their answers, as bytes over a mitogen router.

One `Link` per router: that of the `Session` in the ansible-playbook process, or that of a forked worker. Any thread
may call; the answer is handed over by the broker thread.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence

import mitogen.core
import mitogen.parent

from ansible_mitogen_svc.wire import transfer
from ansible_mitogen_svc.wire.frames import AGENT_HANDLE
from ansible_mitogen_svc.wire.parcel import InPieces

_BINARY = mitogen.core.Message.ENC_BIN
Buffer = bytes | bytearray | memoryview
#: A message, or what it is made of.
Data = bytes | Sequence[Buffer]


class Parcel(InPieces, mitogen.core.Message):  # type: ignore[misc]
    """A message with much data."""


class TargetLost(Exception):
    """The connection to the agent ended before it answered; the message says what mitogen noticed."""


class AnswerTimeout(Exception):
    """The agent did not answer in time."""


class PendingAnswer:
    """An answer under way. `get()` may be called once."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[mitogen.core.Message] = queue.SimpleQueue()
        self.arrived = self._queue.put

    def get(self, timeout: float | None = None) -> bytes:
        """The answer.

        :param timeout: seconds; None waits until the answer or the end of the connection.
        :raises TargetLost: the connection ended.
        :raises AnswerTimeout: `timeout` passed.
        """
        try:
            message = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise AnswerTimeout(f"no answer within {timeout} seconds") from None
        if message.is_dead:
            raise TargetLost(message.data.decode("utf-8", "replace"))
        return bytes(message.data)


class Link:
    """Sends agent messages through a router."""

    def __init__(self, router: mitogen.parent.Router) -> None:
        self._router = router

    def ask(self, context_id: int, data: Data) -> PendingAnswer:
        """Send `data` to the agent of a context; does not wait."""
        pending = PendingAnswer()
        context = self._router.context_by_id(context_id)

        def is_theirs(message: mitogen.core.Message, stream: object) -> bool:
            # mitogen lets anybody say that somebody else's answer will never come.
            return bool(message.src_id == context_id or mitogen.core.has_parent_authority(message))

        handle = self._router.add_handler(pending.arrived, persist=False, policy=is_theirs, respondent=context)
        self._send(context_id, data, handle)
        return pending

    def tell(self, context_id: int, data: Data) -> None:
        """Send `data` to the agent of a context, which will not answer."""
        self._send(context_id, data, 0)

    def widen(self, context_id: int) -> None:
        """Much data is about to come or go: make room in the pipes to and from the context."""
        stream = self._router.stream_by_id(context_id)
        for side in (stream.receive_side, stream.transmit_side) if stream is not None else ():
            if side is not None and side.fd is not None:
                transfer.widen(side.fd)
        if stream is not None and stream.protocol is not None:
            stream.protocol.read_size = transfer.PIPE

    def _send(self, context_id: int, data: Data, reply_to: int) -> None:
        keywords = {"dst_id": context_id, "handle": AGENT_HANDLE, "reply_to": reply_to, "enc": _BINARY}
        if isinstance(data, bytes):
            message = mitogen.core.Message(data=data, **keywords)
        else:
            message = Parcel(**keywords)
            message.put_together(data)
        self._router.route(message)
