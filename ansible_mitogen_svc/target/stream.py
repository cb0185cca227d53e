# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The zygote's event loop and its stream of frames to the agent.

Used by the zygote's single thread. Output is buffered, so that a slow reader never stops the zygote from reading: an
agent and a zygote that both write much at once would otherwise wait for each other.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque

from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_AT_ONCE = select.PIPE_BUF
"""A descriptor that polls writable takes this much without blocking, whoever else set its flags."""


class EventLoop:
    """Calls back what is readable, and what is due; `turn` writes the rest of the output."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever a descriptor is readable or at its end, until `unwatch`."""
        self._ready[descriptor] = ready
        self._poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; harmless when it was not watched. Call it before the descriptor is closed."""
        if self._ready.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once when that time has passed."""
        self._due.append((time.monotonic() + seconds, call))

    def _patience(self) -> float | None:
        """Return the milliseconds until something is due."""
        if not self._due:
            return None
        return max(0.0, min(due[0] for due in self._due) - time.monotonic()) * 1000

    def _call_due(self) -> None:
        now = time.monotonic()
        due = [call for moment, call in self._due if moment <= now]
        self._due = [each for each in self._due if each[0] > now]
        for call in due:
            call()

    def turn(self, output: FrameOutput) -> None:
        """Wait for something and handle it. Raises StreamBroken."""
        stream = output.descriptor
        waiting = output.pending()
        if waiting:
            self._poll.register(stream, select.POLLOUT | (select.POLLIN if stream in self._ready else 0))
        found = self._poll.poll(self._patience())
        if waiting and stream in self._ready:
            self._poll.register(stream, select.POLLIN)
        elif waiting:
            self._poll.unregister(stream)
        for descriptor, events in found:
            if waiting and descriptor == stream and events & ~select.POLLIN:
                output.flush()
            ready = self._ready.get(descriptor)
            if ready is not None and events & ~select.POLLOUT:
                ready()
        if self._due:
            self._call_due()


class StreamBroken(BaseException):
    """The reader of the frames is gone. Not an Exception: whatever handles a job's failure must not take it for one."""


class FrameOutput:
    """Frames on their way out; every method that writes raises StreamBroken when the reader is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._parts: deque[memoryview] = deque()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def pending(self) -> bool:
        """Say whether there is something to write."""
        return bool(self._parts)

    def send(self, call_id: int, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Queue one frame and write what can be written at once."""
        payload = frames.pack_payload(header, blobs)
        self._parts.append(memoryview(frames.frame_header(len(payload), call_id) + payload))
        self.flush()

    def flush(self) -> None:
        """Write as much as the reader takes now."""
        while self._parts and self._poll.poll(0):
            part = self._parts.popleft()
            try:
                written = os.write(self.descriptor, part[:_AT_ONCE])
            except BlockingIOError:
                written = 0
            except OSError as error:
                raise StreamBroken(str(error)) from None
            if written < len(part):
                self._parts.appendleft(part[written:])
            if not written:
                return

    def flush_all(self, seconds: float) -> None:
        """Write everything, as long as the reader takes something every `seconds`."""
        while self._parts and self._poll.poll(int(seconds * 1000)):
            self.flush()
