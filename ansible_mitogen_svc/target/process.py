# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What the zygote's processes need from the system: anonymous files, names, signals, descriptors passed along.

Used in the zygote, its nurseries, job children and builders; all of them are single-threaded when they call this.
"""

from __future__ import annotations

import array
import errno
import json
import os
import signal
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

INHERITED_SIGNALS = {
    number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
"""The handlers a fresh Python had; what a child gets back."""


def set_title(title: str) -> None:
    """Set what `ps -o comm` shows, where /proc allows it."""
    try:
        descriptor = os.open('/proc/self/comm', os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, title.encode())
    except OSError:
        pass
    finally:
        os.close(descriptor)


def anonymous_file(data: bytes = b'') -> int:
    """Return a descriptor (close-on-exec) of a new nameless file which holds `data`. Raises OSError."""
    descriptor = _nameless_file()
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view):]
    except OSError:
        os.close(descriptor)
        raise
    if data:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _nameless_file() -> int:
    if hasattr(os, 'memfd_create'):
        try:
            return os.memfd_create('ansible_mitogen_svc', os.MFD_CLOEXEC)
        except OSError as error:
            # A kernel before 3.17, or a container whose filter of system calls does not know it.
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix='ansible_mitogen_svc_')
    os.unlink(path)
    return descriptor


def read_whole(descriptor: int) -> bytes:
    """Return all of a file from its start, leaving its offset alone."""
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, size, 0) if size else b''
    if len(data) == size:
        return data
    parts = [data]
    offset = len(data)
    while offset < size:
        part = os.pread(descriptor, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b''.join(parts)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor above 2 that is not in `kept`."""
    keep = set(kept)
    try:
        found: Iterable[int] = [int(name) for name in os.listdir('/proc/self/fd')]
    except OSError:
        found = range(3, os.sysconf('SC_OPEN_MAX'))
    for descriptor in found:
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                pass


def reset_signals() -> None:
    """Undo the zygote's own signal handling in a forked child."""
    signal.set_wakeup_fd(-1)
    for number, handler in INHERITED_SIGNALS.items():
        if handler is not None:
            signal.signal(number, handler)


def watch_children() -> tuple[int, int]:
    """Have a byte written for every SIGCHLD; return the descriptors to read them from and they are written to."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, 'pipe2') else _plain_pipe()
    signal.signal(signal.SIGCHLD, _note_child)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader, writer


def _plain_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def _note_child(number: int, frame: object) -> None:
    """Exists so that the wakeup descriptor is written to."""


def drain(descriptor: int) -> None:
    """Read away what a wakeup descriptor holds."""
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass


def exited_children() -> list[tuple[int, int]]:
    """Return (pid, wait status) of every child that has ended since the last call."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, status))


def collect(pids: Iterable[int], limit: float) -> None:
    """Wait until children have ended, and kill those that have not after `limit` seconds."""
    left, deadline = set(pids), time.monotonic() + limit
    while left and time.monotonic() < deadline:
        for pid in list(left):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    left.discard(pid)
            except ChildProcessError:
                left.discard(pid)
        if left:
            time.sleep(0.005)
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def result_of(status: int) -> tuple[int, int | None]:
    """Return (rc, signal) of a wait status; rc is minus the signal for a killed process."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return -number, number
    return os.WEXITSTATUS(status), None


def free_standard_descriptors(input_fd: int, output_fd: int) -> tuple[int, int]:
    """Move the stream away from descriptors 0 to 2, and put /dev/null on 0 and 1; stderr is the agent's to read."""
    import fcntl

    moved = fcntl.fcntl(input_fd, fcntl.F_DUPFD_CLOEXEC, 3)
    moved_output = moved if output_fd == input_fd else fcntl.fcntl(output_fd, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in {input_fd, output_fd, 0, 1} - {2}:
        if descriptor < 3:
            os.dup2(null, descriptor)
        else:
            os.close(descriptor)
    try:
        os.fstat(2)
    except OSError:
        os.dup2(null, 2)
    if null > 2:
        os.close(null)
    return moved, moved_output


def leave_directory() -> str | None:
    """Go to `/`, to keep no file system busy; return where to go back to, None when that would be impossible."""
    try:
        directory = os.getcwd()
        os.stat(os.path.join(directory, '.'))
    except OSError:
        return None
    os.chdir('/')
    return directory


class Garbled(EOFError):
    """What came is no message: somebody else writes to the socket, and nothing behind it can be trusted."""


LONGEST = 16 << 20
"""Bytes after which what has no end is no message."""


class Wire:
    """JSON messages with descriptors over one end of a local stream socket; `send` blocks, `receive` if told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._text = bytearray()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay open here. Raises OSError."""
        data = json.dumps(dict(message, fds=len(descriptors)), separators=(',', ':')).encode() + b'\n'
        if descriptors:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', descriptors))]
            sent = self.socket.sendmsg([data], rights)
            data = data[sent:]
        if data:
            self.socket.sendall(data)

    def receive(self, block: bool = False) -> list[tuple[dict[str, Any], list[int]]]:
        """Return the messages that came, with their descriptors. Raises EOFError at the end, Garbled, OSError."""
        messages: list[tuple[dict[str, Any], list[int]]] = []
        while True:
            try:
                self._read(0 if block else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            while b'\n' in self._text:
                line, _, rest = bytes(self._text).partition(b'\n')
                self._text = bytearray(rest)
                message, count = _message(line)
                messages.append((message, self._descriptors[:count]))
                del self._descriptors[:count]
            if len(self._text) > LONGEST:
                raise Garbled
            if messages or not block:
                return messages

    def _read(self, flags: int) -> None:
        room = socket.CMSG_SPACE(16 * array.array('i').itemsize)
        data, ancillary, _, _ = self.socket.recvmsg(262144, room, flags)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array('i')
                received.frombytes(content[:len(content) - len(content) % received.itemsize])
                for descriptor in received:
                    os.set_inheritable(descriptor, False)
                    self._descriptors.append(descriptor)
        if not data:
            raise EOFError
        self._text += data

    def close(self) -> None:
        self.socket.close()


def _message(line: bytes) -> tuple[dict[str, Any], int]:
    """Return a message and how many descriptors came with it. Raises Garbled."""
    try:
        message = json.loads(line)
        count = message.pop('fds')
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        raise Garbled from None
    if not isinstance(count, int) or count < 0:
        raise Garbled
    return message, count
