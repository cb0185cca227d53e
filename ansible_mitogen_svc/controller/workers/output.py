# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What workers inside this process print: display messages are queued as from a worker process, prints are captured.

Set up by the strategy mixin for the time of a play; used from every thread.

Theory of operation

1. `Display` sends its messages through ``_final_q`` when that is true; core sets it in worker processes only. Ours is a
   `DisplayRouter`: true in a thread while it runs a task, false elsewhere. So workers never write to the terminal,
   messages keep their order relative to results, and de-duplication stays with one thread.
2. Whatever still writes to ``sys.stdout`` or ``sys.stderr`` in a thread while it runs a task is a stray print.
   `ThreadAwareStream` collects it; the worker warns about it in core's words.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from ansible.utils.display import Display

#: Characters of a stray print that are shown, as core does.
SHOWN = 256

_local = threading.local()


class DisplayRouter:
    """Stands in for core's FinalQueue in ``Display._final_q``."""

    def __bool__(self) -> bool:
        return getattr(_local, "leave", None) is not None

    def send_display(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Called by Display, in place of showing the message, in a thread that runs a task."""
        _local.leave(lambda: getattr(Display(), method)(*arguments, **keywords))


class ThreadAwareStream:
    """Stands in for ``sys.stdout`` or ``sys.stderr``: prints of a worker go to its own buffer."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target(), name)

    def _target(self) -> Any:
        captured: Captured | None = getattr(_local, "captured", None)
        return self._stream if captured is None else captured.buffer(self._name)

    def write(self, text: str) -> int:
        """Write to the stream, or to the buffer of the worker this is called from."""
        return int(self._target().write(text))

    def flush(self) -> None:
        """Flush what `write` writes to."""
        self._target().flush()


class Captured:
    """The prints of one task."""

    def __init__(self) -> None:
        self._buffers: dict[str, io.TextIOWrapper] = {}

    def buffer(self, name: str) -> io.TextIOWrapper:
        """The buffer that stands for the stream `name`; it has a ``.buffer`` of bytes like the real ones."""
        if name not in self._buffers:
            self._buffers[name] = io.TextIOWrapper(
                io.BytesIO(), encoding="utf-8", errors="surrogateescape", write_through=True
            )
        return self._buffers[name]

    def texts(self) -> list[tuple[str, str]]:
        """(stream name, text) for each stream that something was printed to."""
        found = []
        for name, buffer in sorted(self._buffers.items(), reverse=True):
            raw = buffer.buffer
            assert isinstance(raw, io.BytesIO)
            if raw.getvalue():
                found.append((name, raw.getvalue().decode("utf-8", "replace")))
        return found


@contextlib.contextmanager
def worker_output(leave: Callable[[Callable[[], None]], None]) -> Iterator[Captured]:
    """Mark the current thread as a worker: its prints are captured, its display messages handed to `leave`."""
    captured = Captured()
    _local.captured, _local.leave = captured, leave
    try:
        yield captured
    finally:
        _local.captured = _local.leave = None


@contextlib.contextmanager
def no_worker_output() -> Iterator[None]:
    """What is done in this block by the main thread, in the middle of an inline task, is not the task's."""
    captured, leave = getattr(_local, "captured", None), getattr(_local, "leave", None)
    _local.captured = _local.leave = None
    try:
        yield
    finally:
        _local.captured, _local.leave = captured, leave


def carried_over() -> Callable[[], None]:
    """A function that makes another thread, for good, part of the worker that the current thread is (or is not)."""
    captured, leave = getattr(_local, "captured", None), getattr(_local, "leave", None)

    def carry_over() -> None:
        _local.captured, _local.leave = captured, leave

    return carry_over


def install_streams() -> None:
    """Put thread-aware streams in place of the standard ones. Doing it twice changes nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, ThreadAwareStream):
            setattr(sys, name, ThreadAwareStream(stream, name))


def remove_streams() -> None:
    """Undo `install_streams`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, ThreadAwareStream):
            setattr(sys, name, stream._stream)
