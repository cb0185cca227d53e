# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Keeps the signals that end a run from being handled in the middle of a fork, or of writing to core's queue.

Used in the main thread, by ``compat/worker_process.py``, once more in the child that was forked meanwhile, and by
``layer.py``.

What handles them raises an exception (KeyboardInterrupt, Terminated). Raised in a function that Python calls around a
fork (``os.register_at_fork``) it is printed and lost, and so is what that function had to do: core 2.22 then holds the
lock of its secrets for good, and every further fork waits 10 seconds for it. Raised in the method of multiprocessing
that takes the queue's lock, it leaves that taken, and core waits for ever to write the queue's end. So they are noted,
and handled afterwards.

A signal may come, and what handles it raise, in between any two steps of putting our handler there and taking it away.
What is left of ours then does what the handler before it would.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """A context manager for the main thread; the child of a fork inside it calls `release` itself."""

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, Any] = {}
        self._noted: list[int] = []
        self._holding = False

    def __enter__(self) -> HeldSignals:
        for number in ENDING:
            handler = signal.getsignal(number)
            if callable(handler) and not isinstance(handler, signal.Handlers):
                self._handlers[number] = handler
                signal.signal(number, self._note)
        self._holding = True
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self._noted.append(number)
        else:
            self._handlers[signal.Signals(number)](number, frame)

    def release(self) -> None:
        """Handle them as before, and what has come meanwhile at once: raises what its handler raises."""
        self._holding = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        noted, self._noted = self._noted, []
        for one in noted[:1]:
            signal.raise_signal(one)
