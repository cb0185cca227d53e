# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs the commands of `execute`: forked from the zygote itself, which is small, and replaced by the program.

Used by the zygote's single thread. A command ends when its process does; what it left in the background neither
delays the answer nor adds to it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from ansible_mitogen_svc.target import child, process, steps
from ansible_mitogen_svc.target.slots import Slot
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ansible_mitogen_svc.target.nurseries import Owner


class Executions:
    """The commands a zygote is running."""

    def __init__(self, directory: str | None, owner: Owner) -> None:
        self._directory = directory
        self._owner = owner
        self._slots: dict[int, Slot] = {}

    def pids(self) -> list[int]:
        """The commands' processes; each leads a process group."""
        return list(self._slots)

    def run(self, job: Any, payload: bytes) -> None:
        """Start a command. Raises OSError."""
        ours, theirs = socket.socketpair()
        slot = Slot(0, ours)
        slot.job = job
        try:
            pid = os.fork()
        except OSError:
            slot.close()
            theirs.close()
            raise
        if not pid:
            self._become(slot, theirs, payload)
        theirs.close()
        self._slots[pid] = slot

    def child_exited(self, pid: int, status: int) -> None:
        """Answer for a command that ended; other pids are none of ours."""
        slot = self._slots.pop(pid, None)
        if slot is not None:
            slot.receive()  # a step or the exec itself may have failed
            self._owner.job_ended(slot, status)
            slot.close()

    def _become(self, slot: Slot, theirs: socket.socket, payload: bytes) -> NoReturn:
        wire = process.Wire(theirs)
        try:
            # Everything else is close-on-exec.
            child.become_child(os.open(os.devnull, os.O_RDWR), slot.output, slot.errors, ())
            header, blobs = frames.unpack_payload(payload)
            child.prepare(header, blobs, self._directory)
            if blobs and blobs[0]:
                descriptor = process.anonymous_file(blobs[0])
                os.dup2(descriptor, 0)
            for number in (signal.SIGPIPE, getattr(signal, 'SIGXFSZ', None), getattr(signal, 'SIGXFZ', None)):
                if number is not None:
                    signal.signal(number, signal.SIG_DFL)  # a shell's commands do not inherit Python's choices
            os.execvp(header['argv'][0], header['argv'])
        except steps.StepFailed as failure:
            wire.send(failure.reply)
        except BaseException as error:
            try:
                wire.send({'error': child.describe(error)})
            except OSError:
                sys.excepthook(*sys.exc_info())
        os._exit(127)
