# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What wakes the main thread: one event, and two containers that set it.

Core's strategies sleep a millisecond at a time between looks at ``_results`` and ``_rpc_queue``. Our mixin puts
these subclasses in their place, so that it can wait for the next thing to happen instead. Put into from any thread.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Any


class WakingDeque(deque[Any]):
    """The strategy's ``_results``. Nothing is appended for `None`: see `delivery.Doorbell`."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def append(self, item: Any) -> None:
        """Add a result and wake the main thread."""
        if item is not None:
            super().append(item)
            self._event.set()


class WakingQueue(queue.Queue[Any]):
    """The strategy's ``_rpc_queue`` (ansible-core >= 2.21)."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a request and wake the main thread."""
        super().put(item, block, timeout)
        self._event.set()
