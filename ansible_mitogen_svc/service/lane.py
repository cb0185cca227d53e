# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A queue whose items are run one after another, in the order they were appended, by one pool thread at a time.

Appended to by the broker thread and by local callers; run by pool threads. The calls of a SerializedInvoker use one,
and so do the first calls of a service that is not active yet (its invoker is not known before it is activated).
"""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING, Callable, Deque, List, Optional

if TYPE_CHECKING:
    from .request import Request


class Lane:
    """See the module's text. *name* is the service's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._items: "Deque[Request]" = collections.deque()
        self._scheduled = False
        #: identity of the thread that runs the lane now
        self.thread: Optional[int] = None

    def append(self, request: "Request") -> bool:
        """Add *request*. True when the caller has to have ``run`` called: no thread has the lane."""
        with self._lock:
            self._items.append(request)
            schedule, self._scheduled = not self._scheduled, True
            return schedule

    def run(self, serve: "Callable[[Request], None]") -> None:
        """Serve items until there are none. *serve* must not raise."""
        while True:
            with self._lock:
                if not self._items:
                    self._scheduled, self.thread = False, None
                    return
                request = self._items.popleft()
                self.thread = threading.get_ident()
            serve(request)

    @property
    def idle(self) -> bool:
        """Whether it is empty and no thread has it or is going to."""
        return not self._scheduled

    def take_all(self) -> "List[Request]":
        """Remove and return what has not been served."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
            return items
