# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Waiting for what happens in another thread or process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until *condition* holds; its value. Fails the test when it does not come true."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > until:
            assert value, "it did not become true in time"
            return value
        time.sleep(0.01)


def pool_threads() -> list[str]:
    """Names of all threads of service pools."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("service-pool")]
