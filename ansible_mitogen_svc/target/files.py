# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Large files on the target: written and read for the controller's FileService.

Shipped to hosts; runs in the agent's process as the login user, each transfer in a thread of its own, so that neither a
slow disk nor an fsync holds up tasks (`Transfers.handle` and `close` are called in the broker and the main thread); and
in the zygote of a become user, which has no threads: there parts are written as they come, and nothing is synced.

Theory of operation
1. The controller names a transfer by a number and begins it with `receive` (it has the file) or `send` (we have it);
   messages of a transfer are handled in the order they come. A path is only ever named by the controller.
2. What is received goes into a temporary file in the destination's directory, locked while we live. `complete`
   compares size and digest, gives it mode (and owner and attributes of the file it replaces), syncs and renames it.
3. The first failure removes the temporary file and is kept: it answers the next message that wants an answer.
4. A connection that ends takes the unfinished files with it (`close`). What a killed agent left is removed by the
   next transfer to the same destination, which finds it unlocked.
5. What exists and is no regular file is written in place, as sftp does; and so is, with what has all come, a file that
   something is mounted on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import stat
import threading

from ansible_mitogen_svc.wire import mounted, transfer
from ansible_mitogen_svc.wire.attributes import copy_attributes
from ansible_mitogen_svc.wire.file_version import version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Answer = Callable[[Any, dict[str, Any], list[bytes]], None]

SUFFIX = '.svc-part'
READ_LIMIT = 1 << 20
"""Bytes that one `pull` may ask for."""


class Transfers:
    """The transfers of one process. `answer(caller, header, blobs)` may be called from any thread.

    With `kind` `Transfer` all is done by who calls `handle`; with `ThreadedTransfer` in threads.
    """

    def __init__(self, answer: Answer, kind: type[Transfer]) -> None:
        self._answer = answer
        self._kind = kind
        self._running: dict[int, Transfer] = {}

    def handle(self, caller: Any, header: dict[str, Any], blobs: list[bytes]) -> None:
        """Take one of OPERATIONS; it is answered when it is done."""
        number = header['transfer']
        if header['op'] in _KINDS:
            self._running[number] = self._kind(self._answer, _KINDS[header['op']](header))
        elif number not in self._running:
            error = {'type': 'LookupError', 'message': f'no transfer {number}'}
            return self._answer(caller, {'error': error}, [])
        running = self._running[number]
        if header['op'] in LAST:
            del self._running[number]
        running.handle(caller, header, blobs)

    def close(self) -> None:
        """Remove what is unfinished."""
        for running in list(self._running.values()):
            running.end.abandon()


class Transfer:
    """One file under way."""

    def __init__(self, answer: Answer, end: Incoming | Outgoing) -> None:
        self.end = end
        self._answer = answer
        self._failure: dict[str, Any] | None = None

    def handle(self, caller: Any, header: dict[str, Any], blobs: list[bytes]) -> None:
        """Do what a message says, and answer it."""
        reply: tuple[dict[str, Any], list[bytes]] = {}, []
        if self._failure is None:
            try:
                reply = self.end.do(header, blobs)
            except Exception as error:
                self._failure = {'error': _describe(error)}
                self.end.discard()
        if self._failure is not None:
            reply = self._failure, []
        self._answer(caller, *reply)
        if header['op'] in LAST:
            self.end.discard()


class ThreadedTransfer(Transfer):
    """One file under way, in a thread of its own."""

    def __init__(self, answer: Answer, end: Incoming | Outgoing) -> None:
        super().__init__(answer, end)
        self._queue: queue.SimpleQueue[tuple[Any, dict[str, Any], list[bytes]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name='svc-file', daemon=True).start()

    def handle(self, caller: Any, header: dict[str, Any], blobs: list[bytes]) -> None:
        """Leave a message to the thread."""
        self._queue.put((caller, header, blobs))

    def _run(self) -> None:
        last = False
        while not last:
            caller, header, blobs = self._queue.get()
            super().handle(caller, header, blobs)
            last = header['op'] in LAST


def _describe(error: Exception) -> dict[str, str]:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f'{error.strerror}: {error.filename}' if isinstance(error.filename, str) else error.strerror
    return {'type': type(error).__name__, 'message': text}


class Incoming:
    """A file that comes from the controller."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._path = header['path']
        self._mode = header['mode']
        self._durable = header.get('durable', True)
        self._digests = transfer.FileDigests(header['digests']) if header.get('digests') else None
        self._sync: transfer.EarlySync | None = None
        self._lock = threading.Lock()
        self._descriptor = -1
        self._temporary: str | None = None
        self._replaced: os.stat_result | None = None
        self._final = self._path
        self._writer: Any = None

    def do(self, header: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Do one message's work. Raises OSError, ValueError."""
        try:
            if header['op'] == 'receive':
                self._open()
            elif header['op'] == 'part':
                self._writer.write(header, blobs, READ_LIMIT)
            elif header['op'] == 'complete':
                return self._complete(header['size'], header['sha256']), []
        except OSError as error:
            if error.filename is None or error.filename == self._temporary:
                error.filename = self._path
            error.filename2 = None
            raise
        return {}, []

    def _open(self) -> None:
        self._final = os.path.realpath(self._path)
        try:
            self._replaced = os.stat(self._final)
        except FileNotFoundError:
            pass
        if self._replaced is not None and not self._can_be_replaced():
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, self._mode)
        else:
            self._open_temporary()
        if self._durable and self._temporary is not None:
            self._sync = transfer.EarlySync(self._descriptor)
        self._writer = transfer.PartWriter(self._descriptor, self._digests)

    def _can_be_replaced(self) -> bool:
        """Whether another file can take this one's place unnoticed; else it is written in place, as sftp would."""
        replaced = self._replaced
        assert replaced is not None
        mine = os.geteuid() in (0, replaced.st_uid) and (os.geteuid() == 0 or replaced.st_gid == os.getegid())
        writable = os.access(os.path.dirname(self._final), os.W_OK)
        return stat.S_ISREG(replaced.st_mode) and replaced.st_nlink == 1 and mine and writable

    def _open_temporary(self) -> None:
        directory, name = os.path.split(self._final)
        # Bytes are what a name may have 255 of.
        prefix = f'.{os.fsdecode(os.fsencode(name)[:60])}.'
        _remove_stale(directory, prefix)
        while self._descriptor < 0:
            temporary = os.path.join(directory, f'{prefix}{os.urandom(8).hex()}{SUFFIX}')
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                self._temporary, self._descriptor = temporary, descriptor
            else:
                os.close(descriptor)  # somebody took it for a stale one before it was locked

    def _complete(self, size: int, digest: str) -> dict[str, Any]:
        self._writer.finish()
        if self._writer.offset != size or self._writer.digest.hexdigest() != digest:
            raise ValueError(f'{self._path} did not arrive as it was sent')
        if self._temporary is not None:
            self._take_attributes()
        if self._sync is not None:
            self._sync.finish()
        if self._durable:
            os.fsync(self._descriptor)
        self._take_name()
        if self._durable:
            _sync_directory(os.path.dirname(self._final))
        digests = self._digests.hexdigests() if self._digests is not None else {}
        return {'version': version_of(os.fstat(self._descriptor)), 'digests': digests} if digests else {}

    def _take_name(self) -> None:
        with self._lock:
            if self._temporary is None or mounted.rename(self._temporary, self._final):
                self._temporary = None
                return
        finished = self._descriptor
        self._descriptor = mounted.write_over(finished, self._final, self._mode)
        os.close(finished)
        self.abandon()

    def _take_attributes(self) -> None:
        if self._replaced is None:
            os.fchmod(self._descriptor, self._mode & ~_umask())
            return
        os.fchown(self._descriptor, self._replaced.st_uid, self._replaced.st_gid)
        os.fchmod(self._descriptor, stat.S_IMODE(self._replaced.st_mode))
        copy_attributes(self._final, self._descriptor)

    def abandon(self) -> None:
        """Remove what is unfinished, from any thread; the descriptor stays the transfer's own."""
        with self._lock:
            if self._temporary is not None:
                try:
                    os.unlink(self._temporary)
                except OSError:
                    pass
                self._temporary = None

    def discard(self) -> None:
        """Remove what is unfinished; may be called twice."""
        self.abandon()
        for beside in (self._digests, self._sync):
            if beside is not None:
                beside.close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Outgoing:
    """A file that goes to the controller."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._path = header['path']
        self._holes = header.get('holes', True)
        self._descriptor = -1
        self._reader: Any = None

    def do(self, header: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Do one message's work. Raises OSError."""
        if header['op'] == 'send':
            return self._open()
        if header['op'] == 'pull':
            return self._pull(min(header['length'], READ_LIMIT), bool(header.get('compress')))
        return {}, []

    def _open(self) -> tuple[dict[str, Any], list[bytes]]:
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._reader = transfer.PartReader(self._descriptor, self._holes)
            size = self._reader.size
            mode = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
            return {'size': size, 'mode': mode, 'shrinks': transfer.shrinks(self._descriptor, size)}, []
        except OSError as error:
            error.filename = self._path
            raise

    def _pull(self, length: int, compress: bool) -> tuple[dict[str, Any], list[bytes]]:
        hole, data = self._reader.read(length)
        if self._reader.ended:
            return {'eof': True, 'size': self._reader.offset, 'sha256': self._reader.digest.hexdigest()}, []
        return transfer.pack_part(hole, data, compress)

    def abandon(self) -> None:
        """There is nothing to remove."""

    def discard(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _remove_stale(directory: str, prefix: str) -> None:
    """Remove temporary files of ours that no living process holds; nothing where one may not look for them."""
    try:
        with os.scandir(directory or '.') as entries:
            found = [entry.path for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(SUFFIX)]
    except OSError:
        return
    for path in found:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
        except OSError:
            pass
        finally:
            os.close(descriptor)


def _sync_directory(directory: str) -> None:
    """Make a rename last; a directory that may not be read, or a file system without such, is left to itself."""
    try:
        descriptor = os.open(directory or '.', os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    """This process's umask; only read while nobody forks, and without /proc for an instant another one."""
    try:
        with open('/proc/self/status', 'rb') as status:
            for line in status:
                if line.startswith(b'Umask:'):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_KINDS: dict[str, Callable[[dict[str, Any]], Incoming | Outgoing]] = {'receive': Incoming, 'send': Outgoing}
BEGINNINGS = tuple(_KINDS)
LAST = ('complete', 'discard')
OPERATIONS = ('receive', 'part', 'complete', 'send', 'pull', 'discard')
