# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs the commands of `execute`: forked from the zygote itself, which is small, and replaced by the program.

Used by the zygote's single thread.

Theory of operation
1. A command writes into two pipes, as under core: what opens /dev/stdout again adds to them instead of emptying them,
   and no limit of the size of files holds for them. The zygote's event loop reads them into memory.
2. A command is answered when its process has exited and nobody has the pipes open any more: so a filter in the
   background (`exec > >(tee -a log)`) has the time to write. For a daemon that keeps them open core would wait as long
   as it runs; here SILENCE seconds after the exit, or the last output, are the end, and LONGEST seconds after the exit.
3. What a daemon writes later is read and dropped: a pipe that nobody reads would kill it. When there are too many such
   pipes, and at the zygote's end, a process is left behind that reads them until they end.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
import sys
import time
from collections import deque

from ansible_mitogen_svc.target import child, coerced_locale, process, steps
from ansible_mitogen_svc.target.slots import JobProcess
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Protocol

    class Owner(Protocol):
        """What the jobs do for the commands."""

        def watch(self, descriptor: int, ready: Any) -> None: ...
        def unwatch(self, descriptor: int) -> None: ...
        def later(self, seconds: float, call: Any) -> None: ...
        def job_ended(self, slot: JobProcess, status: int | None) -> None: ...

SILENCE = 1.0
"""Seconds without output after which an exited command is answered, though somebody has its pipes open."""
LONGEST = 30.0
"""Seconds after its exit in which a command is answered, whatever comes."""
LEFT_OPEN = 16
"""Pipes that are read though their commands were answered; each costs a descriptor."""
_AT_ONCE = 1 << 18


class Executions:
    """The commands a zygote is running."""

    def __init__(self, directory: str | None, owner: Owner) -> None:
        self._directory = directory
        self._owner = owner
        self._running: dict[int, Command] = {}
        self._open: set[Pipe] = set()
        self._left: deque[Pipe] = deque()
        """Those whose commands were answered."""

    def pids(self) -> list[int]:
        """The commands' processes; each leads a process group."""
        return list(self._running)

    def run(self, job: Any, payload: bytes) -> None:
        """Start a command. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = Command(ours, job)
            try:
                command.open_pipes()
                pid = os.fork()
            except OSError:
                command.close()
                raise
            if not pid:
                self._become(command, theirs, payload)
        self._running[pid] = command
        for pipe in command.pipes:
            pipe.close_writing()  # the last writer's end is what tells us that there is no more to come
            self._open.add(pipe)
            self._owner.watch(pipe.reading, functools.partial(self._hear, command, pipe))

    def child_exited(self, pid: int, status: int) -> None:
        """Take the end of a command's process; other pids are none of ours."""
        command = self._running.pop(pid, None)
        if command is not None:
            command.receive()  # a step or the exec itself may have failed
            command.status = status
            command.exited = command.heard = time.monotonic()
            self._answer_if_ended(command)

    def _hear(self, command: Command, pipe: Pipe) -> None:
        if pipe.read():
            command.heard = time.monotonic()
        elif pipe.ended:
            self._close(pipe)
            self._answer_if_ended(command)

    def _close(self, pipe: Pipe) -> None:
        self._owner.unwatch(pipe.reading)
        pipe.close()
        self._open.discard(pipe)
        if pipe in self._left:
            self._left.remove(pipe)

    def _answer_if_ended(self, command: Command) -> None:
        """Answer for a command, or look at it again when it has been silent for long enough."""
        if command.status is None or command.answered:
            return
        left = command.open_ones()
        patience = command.patience() if left else 0.0
        if patience > 0:
            self._owner.later(patience, functools.partial(self._answer_if_ended, command))
            return
        command.answered = True
        self._owner.job_ended(command, command.status)
        command.wire.close()
        for pipe in command.pipes:
            pipe.drop()
        self._left.extend(left)
        if len(self._left) > LEFT_OPEN:
            self._leave(list(self._left))

    def close(self) -> None:
        """Let go of the pipes, whose commands are not to be answered any more."""
        self._leave(list(self._open))

    def _leave(self, pipes: list[Pipe]) -> None:
        """Have a process of its own read pipes until they end; where none can be made, they end now."""
        try:
            is_reader = bool(pipes) and not os.fork()
        except OSError:
            is_reader = False
        if is_reader:
            _drain([pipe.reading for pipe in pipes])
        for pipe in pipes:
            self._close(pipe)

    def _become(self, command: Command, theirs: socket.socket, payload: bytes) -> NoReturn:
        wire = process.Wire(theirs)
        try:
            # Everything else is close-on-exec.
            output, errors = (pipe.writing for pipe in command.pipes)
            child.become_child(os.open(os.devnull, os.O_RDWR), output, errors, ())
            header, blobs = frames.unpack_payload(payload)
            coerced_locale.undo(os.environ)
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
                wire.send({'error': child.describe(error), 'steps_done': child.steps_done})
            except OSError:
                sys.excepthook(*sys.exc_info())
        os._exit(127)


def _drain(descriptors: list[int]) -> NoReturn:
    """Read and drop until every pipe has ended."""
    try:
        process.reset_signals()
        os.setsid()
        process.close_all_but(descriptors)
        process.set_title('svc-drain')
        poll = select.poll()
        for descriptor in descriptors:
            os.set_blocking(descriptor, True)
            poll.register(descriptor, select.POLLIN)
        left = len(descriptors)
        while left:
            for descriptor, _event in poll.poll():
                if not os.read(descriptor, _AT_ONCE):
                    poll.unregister(descriptor)
                    left -= 1
    finally:
        os._exit(0)


class Command(JobProcess):
    """A command's process and its output. `status` is None while it runs."""

    def __init__(self, sock: socket.socket, job: Any) -> None:
        super().__init__(sock)
        self.job = job
        self.pipes: list[Pipe] = []
        """Of stdout and stderr."""
        self.status: int | None = None
        self.exited = self.heard = 0.0
        """When the process ended, and when there was output since."""
        self.answered = False

    def open_pipes(self) -> None:
        """Make the pipes. Raises OSError; what was made until then is left to `close`."""
        for _stream in range(2):
            self.pipes.append(Pipe())

    def open_ones(self) -> list[Pipe]:
        """Return the pipes somebody may still write to."""
        return [pipe for pipe in self.pipes if not pipe.ended]

    def patience(self) -> float:
        """Return the seconds to wait for more output of an exited command."""
        return min(self.heard + SILENCE, self.exited + LONGEST) - time.monotonic()

    def blobs(self) -> list[bytes]:
        frames.check_length(sum(pipe.size for pipe in self.pipes))
        return [bytes(pipe.content) for pipe in self.pipes]

    def close(self) -> None:
        """Give back everything, of a command that could not be started."""
        self.wire.close()
        for pipe in self.pipes:
            pipe.close_writing()
            pipe.close()


class Pipe:
    """What a command writes to one of its streams: in memory, but for what is too much to be sent."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.content = bytearray()
        self.size = 0
        self.ended = False
        self._dropped = False

    def read(self) -> bool:
        """Take something of what came, if anything did."""
        try:
            data = os.read(self.reading, _AT_ONCE)
        except BlockingIOError:
            return False
        self.ended = not data
        if not self._dropped:
            self.size += len(data)
            if self.size <= frames.MAX_PAYLOAD:
                self.content += data
        return bool(data)

    def drop(self) -> None:
        """Forget what came, and what comes."""
        self._dropped = True
        self.content = bytearray()

    def close_writing(self) -> None:
        """Close the end that is the command's."""
        os.close(self.writing)

    def close(self) -> None:
        os.close(self.reading)
