# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Keeps the signals that end a run from being lost in the middle of an inline task.

Used by ``task_worker.py`` in the main thread.

What handles them raises an exception (KeyboardInterrupt, Terminated). Where that happens in a function that Python
calls while it does something else, and core's templates have such a one (``__del__``), Python prints it and goes on: of
40 runs that got Ctrl-C in the middle of templates one did not end. So what was raised is remembered, and raised again
where the task comes by (`check`).
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from ansible_mitogen_svc.controller.workers.held_signals import ENDING


class HeardSignals:
    """A context manager for the main thread."""

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, Any] = {}
        self._raised: BaseException | None = None

    def __enter__(self) -> HeardSignals:
        for number in ENDING:
            handler = signal.getsignal(number)
            if callable(handler) and not isinstance(handler, signal.Handlers):
                self._handlers[number] = handler
                signal.signal(number, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            # Core's handler leaves the system's in its place.
            if signal.getsignal(number) == self._hear:
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handlers[signal.Signals(number)](number, frame)
        except BaseException as error:
            self._raised = error
            raise

    def check(self) -> None:
        """Raise what a handler has raised, if it was lost on its way."""
        if self._raised is not None:
            raise self._raised
