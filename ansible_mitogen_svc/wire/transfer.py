# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A large file as a sequence of parts: data and holes, each in a message of its own, under one digest.

Used by the FileService (pool threads of the ansible-playbook process) and by the agent (one thread per transfer), each
as the end that reads and as the end that writes. An object here belongs to one thread. docs/protocol.md has the
messages.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import queue
import stat
import threading
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Dict, List, Tuple, Union

    Buffer = Union[bytes, bytearray, memoryview]
    Part = Tuple[Dict[str, Any], List[bytes]]

PART = 128 * 1024
"""Bytes of a part: enough to keep a link busy, little enough to let other messages pass."""

_WORTHWHILE = 0.95
"""What a compressed part may have of its size to be sent that way."""

_SAMPLES, _SAMPLE_SIZE, _SHRINKS = 4, 16 * 1024, 0.75
"""How much of a file is compressed to know whether it is worth trying, and what may remain of that."""
LARGE = 8 << 20
"""Bytes from which on compressing is tried: below, it is over before a speed is known."""


_SYNC_INTERVAL = 0.2
"""Seconds between two times that what was written is sent to the disk."""

_AHEAD = 8
"""Parts that may wait to be hashed."""

_SET_PIPE_SIZE, _GET_PIPE_SIZE = 1031, 1032
"""Linux's; Python has names for them since 3.10 only, and other systems answer with an error."""
PIPE = 256 * 1024
"""Bytes of a pipe that files pass through: what lies in it is read at once instead of in many small pieces."""


class PartError(ValueError):
    """A part that is not what it says."""


class StreamDigest:
    """sha256 of a sequence of parts. A hole counts with its length only: nobody hashes gigabytes of zeros."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def data(self, data: Buffer) -> None:
        """Add bytes; how they are divided makes no difference."""
        self._digest.update(data)

    def hole(self, length: int) -> None:
        """Add a hole of `length` bytes."""
        self._digest.update(b'\0hole %d\0' % length)

    def hexdigest(self) -> str:
        """The digest of what was added so far."""
        return self._digest.hexdigest()


DIGESTS = ('sha1', 'md5')
"""What ansible-core's copy and fetch compute of a file."""


class FileDigests:
    """Digests of a file's content, computed in a thread beside the one that has the content pass by.

    Core's modules and actions so need not read the file again. A hole ends it: to hash its zeros here would cost as
    much.
    """

    def __init__(self, names: Sequence[str] = DIGESTS) -> None:
        self._queue: queue.Queue[Buffer | None] = queue.Queue(_AHEAD)
        self._digests: dict[str, Any] = {}
        for name in names:
            try:
                self._digests[name] = hashlib.new(name)
            except ValueError:
                pass  # a system that forbids it
        self._thread = threading.Thread(target=self._run, name='svc-digest', daemon=True)
        self._thread.start()
        self._whole = True

    def data(self, data: Buffer) -> None:
        """Add bytes, which are not changed afterwards; waits while too much is waiting."""
        if self._whole:
            self._queue.put(data)

    def hole(self) -> None:
        """There is a hole: nothing will be known."""
        if self._whole:
            self._whole = False
            self._queue.put(None)

    def close(self) -> None:
        """Give up."""
        self.hole()

    def hexdigests(self) -> dict[str, str]:
        """The digests by their names; none when there was a hole."""
        if not self._whole:
            return {}
        self._whole = False
        self._queue.put(None)
        self._thread.join()
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def _run(self) -> None:
        data = self._queue.get()
        while data is not None:
            for digest in self._digests.values():
                digest.update(data)
            data = self._queue.get()


class EarlySync:
    """Has what is written to a file go to its disk while more of it comes, so that little is left for the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._over = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name='svc-sync', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        sync = getattr(os, 'fdatasync', os.fsync)
        try:
            while not self._over.wait(_SYNC_INTERVAL):
                sync(self._descriptor)
        except OSError as error:
            # Linux tells each failure once.
            self._failure = error
        finally:
            os.close(self._descriptor)

    def close(self) -> None:
        """Let go of the file, when what was begun has ended."""
        self._over.set()
        self._thread.join()

    def finish(self) -> None:
        """As `close`. Raises OSError: something could not be written."""
        self.close()
        failure, self._failure = self._failure, None
        if failure is not None and failure.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):
            raise failure


class PartReader:
    """Reads an open file from its start, as data and holes; what is added to it meanwhile is not read.

    `size` is that of the file when reading began, `offset` how far it was read, `ended` whether that is to its end.
    """

    def __init__(self, descriptor: int, holes: bool = True) -> None:
        """Begin. Without `holes` they are data. Raises OSError."""
        self._descriptor = descriptor
        self._before = os.fstat(descriptor)
        if stat.S_ISDIR(self._before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._regular = stat.S_ISREG(self._before.st_mode)
        self.size = self._before.st_size
        self.offset = 0
        self.ended = False
        self.digest = StreamDigest()
        # Files of /proc and the like have data and no size.
        self._data_end = 0 if holes and self._regular and self.size else None

    def read(self, length: int) -> tuple[int, bytes]:
        """Return (bytes of a hole, b'') or (0, data of at most `length` bytes); (0, b'') at the end. Raises OSError."""
        if self._data_end is not None and self.offset >= self._data_end:
            hole = self._find_data()
            if hole:
                self.offset += hole
                self.digest.hole(hole)
                return hole, b''
        if self._data_end is not None:
            length = min(length, self._data_end - self.offset)
        if self._regular and self.size:
            length = min(length, self.size - self.offset)
        data = os.pread(self._descriptor, length, self.offset) if self._regular else os.read(self._descriptor, length)
        self.offset += len(data)
        self.digest.data(data)
        self.ended = not data
        return 0, data

    def _find_data(self) -> int:
        """Find the next data and where it ends; return how many bytes from here on are a hole."""
        try:
            start = min(self.size, os.lseek(self._descriptor, self.offset, os.SEEK_DATA))
            self._data_end = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            return start - self.offset
        except (OSError, AttributeError) as error:
            # No data from here on; or a file system, or a system, that knows no holes.
            self._data_end = None
            none_left = isinstance(error, OSError) and error.errno == errno.ENXIO
            return max(0, min(self.size, os.fstat(self._descriptor).st_size) - self.offset) if none_left else 0

    def changed(self) -> bool:
        """Say whether the file is another one than when reading began. Raises OSError."""
        if not self._regular or not self.size:
            return False
        now = os.fstat(self._descriptor)
        before = self._before
        return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns) or self.offset != before.st_size


class PartWriter:
    """Writes parts to an open file; holes stay holes where the file is new and its file system has such."""

    def __init__(self, descriptor: int, digests: FileDigests | None = None) -> None:
        self._descriptor = descriptor
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self.offset = 0
        self.digest = StreamDigest()
        self._digests = digests

    def write(self, header: dict[str, Any], blobs: Sequence[Buffer], limit: int) -> None:
        """Write one part of at most `limit` bytes of data. Raises PartError, OSError."""
        hole, data = unpack_part(header, blobs, limit)
        if hole and self._regular:
            self.offset = os.lseek(self._descriptor, hole, os.SEEK_CUR)
            self.digest.hole(hole)
            if self._digests is not None:
                self._digests.hole()
        elif hole:
            raise PartError('a hole in something that is not a file')
        if self._digests is not None and data:
            self._digests.data(data)
        view = memoryview(data)
        self.digest.data(view)
        self.offset += len(view)
        while view:
            view = view[os.write(self._descriptor, view):]

    def finish(self) -> None:
        """A hole at the end makes the file longer, too. Raises OSError."""
        if self._regular:
            os.ftruncate(self._descriptor, self.offset)


def pack_part(hole: int, data: bytes, compress: bool) -> Part:
    """Return header and blobs of a part."""
    if hole:
        return {'hole': hole}, []
    if compress:
        smaller = zlib.compress(data, 1)
        if len(smaller) < len(data) * _WORTHWHILE:
            return {'z': len(data)}, [smaller]
    return {}, [data]


def unpack_part(header: dict[str, Any], blobs: Sequence[Buffer], limit: int) -> tuple[int, Buffer]:
    """Return (bytes of a hole, data). Raises PartError, also for data of more than `limit` bytes."""
    hole, size = header.get('hole', 0), header.get('z')
    if type(hole) is not int or hole < 0 or hole > 1 << 62 or len(blobs) > 1 or bool(hole) == bool(blobs):
        raise PartError('a part is either data or a hole')
    data: Buffer = blobs[0] if blobs else b''
    if size is not None:
        if type(size) is not int or not 0 < size <= limit:
            raise PartError('a compressed part is larger than allowed')
        try:
            data = zlib.decompressobj().decompress(data, size + 1)
        except zlib.error as error:
            raise PartError(f'a compressed part is damaged: {error}') from None
        if len(data) != size:
            raise PartError('a compressed part has another size than it says')
    if len(data) > limit:
        raise PartError('a part is larger than allowed')
    return hole, data


def shrinks(descriptor: int, size: int) -> bool:
    """Say whether a sample of a large regular file compresses; where it is read is left alone. Raises OSError."""
    if size < LARGE:
        return False
    length = shorter = 0
    for number in range(_SAMPLES):
        data = os.pread(descriptor, _SAMPLE_SIZE, size // _SAMPLES * number)
        if data.count(0) < len(data):
            length += len(data)
            shorter += len(zlib.compress(data, 1))
    return bool(length) and shorter < length * _SHRINKS


def widen(descriptor: int) -> None:
    """Make room in a pipe; what is no pipe, or may not grow any more, stays as it is."""
    try:
        if fcntl.fcntl(descriptor, _GET_PIPE_SIZE) < PIPE:
            fcntl.fcntl(descriptor, _SET_PIPE_SIZE, PIPE)
    except OSError:
        pass
