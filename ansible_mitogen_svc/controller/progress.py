# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The line that shows on a terminal how far a long file transfer is.

Called by the FileService in pool threads of the ansible-playbook process (services/file.py, `Report`); one object per
Session. Where standard output is no terminal nothing is ever shown.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from dataclasses import dataclass

from ansible.utils.display import Display

from ansible_mitogen_svc.services.file import Progress
from ansible_mitogen_svc.statistics import counters

display = Display()
#: Seconds that a transfer takes before it is shown, and between two lines.
PATIENCE, PAUSE = 2.0, 0.5


@dataclass
class _Transfer:
    begun: float
    shown: bool = False


class ProgressLine:
    """Shows transfers; `__call__` is a `services.file.Report`."""

    def __init__(self) -> None:
        # Guards the two below.
        self._lock = threading.Lock()
        self._transfers: dict[int, _Transfer] = {}
        self._latest = 0.0

    def __call__(self, number: int, progress: Progress | None) -> None:
        """Note how far transfer `number` is, None at its end, and show it when it is time."""
        now = time.monotonic()
        with self._lock:
            if progress is None:
                ended = self._transfers.pop(number, None)
                if ended is not None and ended.shown:
                    _show("")
                return
            transfer = self._transfers.setdefault(number, _Transfer(now))
            if now - transfer.begun < PATIENCE or now - self._latest < PAUSE or not sys.stdout.isatty():
                return
            self._latest = now
            if not transfer.shown:
                transfer.shown = True
                counters.add("transfer", "shown")
            _show(describe(progress))


def describe(progress: Progress) -> str:
    """One line without an end: target, file, bytes, rate, remaining time."""
    share = f" {100 * progress.done // progress.size}%" if progress.size else ""
    done = f"{progress.done / 1e6:.0f} of {progress.size / 1e6:.0f} MB{share}"
    rate = f", {progress.rate / 1e6:.1f} MB/s" if progress.rate else ""
    left = (progress.size - progress.done) / progress.rate if progress.rate else 0.0
    remaining = f", {int(left) // 60}:{int(left) % 60:02} left" if left > 0 else ""
    return f"{progress.target}: {progress.path}: {done}{rate}{remaining}"


def _show(text: str) -> None:
    """The cursor goes back to the line's start: whatever Ansible prints next takes its place."""
    width = shutil.get_terminal_size().columns - 1
    display.display(f"{text[-width:]:{width}}\r", screen_only=True, newline=False)
