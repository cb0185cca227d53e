# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Tells the broker at once that a program which it started has exited.

Used by `services/bootstrap.py` in the broker thread. mitogen looks after a child's exit with timers, the first one
after 50 ms: a run would wait that long at its end for every ssh that needs 10 ms to leave. Where the system has no
process descriptors (Linux before 5.3, other systems) it does.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import mitogen.core


class ExitWatch:
    """A process descriptor in the broker's poller. It is its own side and stream there, as far as the broker asks."""

    #: The broker may end before the process does.
    keep_alive = False

    def __init__(self, broker: mitogen.core.Broker, descriptor: int, exited: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._exited = exited
        self.stream = self
        broker.poller.start_receive(descriptor, (self, self._on_readable))

    def _on_readable(self, broker: mitogen.core.Broker) -> None:
        self.on_disconnect(broker)
        self._exited()

    def on_shutdown(self, broker: mitogen.core.Broker) -> None:
        """The broker is about to end; whoever watches decides whether it waits."""

    def on_disconnect(self, broker: mitogen.core.Broker) -> None:
        """The process ended, or the broker does."""
        if self._descriptor >= 0:
            broker.poller.stop_receive(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def watch(broker: mitogen.core.Broker, pid: int, exited: Callable[[], None]) -> None:
    """Call `exited` when a child of this process, which nobody has waited for yet, ends; only in the broker thread."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return
    ExitWatch(broker, descriptor, exited)
