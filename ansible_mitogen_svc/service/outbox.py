# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Replies on their way from a pool's threads to the broker thread, which alone may write to connections.

Router.route() costs a pool thread one write to the broker's pipe per message, at which the broker thread wakes and the
two fight for the interpreter's lock: half of the CPU time of a short call. So replies go through an outbox:
1. send() appends the reply to the outbox, and has the broker thread run _flush, which routes everything in there.
2. While such a _flush is the last thing the broker thread has been asked to do, further replies are only appended.
3. When something else was deferred after it, a reply is routed on its own: whatever the method itself has sent through
   the router before it returned (a file's parts, say) arrives before its reply, as with plain Router.route().
4. After appending, the end of the broker's list is looked at once more: a _flush seen there has not begun, so it will
   find the reply; in any other case a further one is asked for. No flag is kept that an interrupted thread could leave
   set, and a _flush too many does nothing.
The list is private to mitogen's Waker (``_deferred``, mitogen 0.3.x); without it, every reply is routed alone.
"""

from __future__ import annotations

import collections
from typing import Any, Deque, Optional

import mitogen.core

from .encoding import Encoded

#: raised when the broker has exited (its streams' sides are None then): no connection is left to answer on
_GONE = (mitogen.core.Error, OSError, AttributeError)


class Outbox:
    """See the module's text. One per pool; send() is called from any thread."""

    def __init__(self, router: mitogen.core.Router) -> None:
        self.router = router
        self._replies: "Deque[mitogen.core.Message]" = collections.deque()
        waker = getattr(router.broker.defer, "__self__", None)
        self._deferred: "Optional[Deque[Any]]" = getattr(waker, "_deferred", None)

    def send(self, message: mitogen.core.Message, encoded: Encoded) -> None:
        """Send the reply to *message*; nothing happens without a reply handle, or when the broker is gone."""
        if not message.reply_to:
            return
        reply = _reply(message, encoded)
        try:
            if self._deferred is None or (self._deferred and not self._flush_is_last()):
                self.router.route(reply)
                return
            self._replies.append(reply)
            if not self._flush_is_last():
                self.router.broker.defer(self._flush)
        except _GONE:
            pass

    def send_from_broker(self, message: mitogen.core.Message, encoded: Encoded) -> None:
        """send() for the broker thread: the reply goes to its connection at once."""
        if message.reply_to:
            self._route(_reply(message, encoded))

    def _flush_is_last(self) -> bool:
        try:
            return bool(self._deferred[-1][0] == self._flush)  # type: ignore[index]
        except IndexError:
            return False

    def _flush(self) -> None:
        """Route all replies. In the broker thread."""
        while True:
            try:
                reply = self._replies.popleft()
            except IndexError:
                return
            self._route(reply)

    def _route(self, reply: mitogen.core.Message) -> None:
        try:
            self.router.route(reply)
        except _GONE:
            pass


def _reply(message: mitogen.core.Message, encoded: Encoded) -> mitogen.core.Message:
    return mitogen.core.Message(enc=encoded.enc, data=encoded.data, dst_id=message.src_id, handle=message.reply_to)
