# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Places for jobs: a child's socket and output files, and the name its module zip has while it runs.

Used by the zygote's single thread; the other end of a slot's socket is child.py.

Theory of operation
1. A *slot* is a child that exists or is about to. One per nursery is kept ahead of need (the spare). A job may be
   sent into a slot before its process exists.
2. A job's slot is finished by the first of: the child's answer; the report of its exit, when the socket holds no
   answer; the end of the socket, when whoever would have reported has died.
3. The slot keeps the file with the job's payload until then. Its offset is shared with the child, which moves it just
   before it begins: so the zygote can tell, without a message per job, whether a process that died had begun its job.
   A job that was not begun is run elsewhere; one that was is never run twice.
4. Each running job has a zip of its own name, a hard link to the manifest's zip in the store. Preloaded code carries
   the name its nursery was given, so a job that gets that name renames nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket

from ansible_mitogen_svc.target import process
from ansible_mitogen_svc.target.private_place import is_own_directory
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_mitogen_svc.target.store import Store


class JobZips:
    """Names of zips for running jobs, as links to the store's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = store.make_jobs_directory()
        self._left: list[str] = []
        """Directories in use before."""
        self._taken: dict[int, str] = {}
        """Places in use, by their numbers."""

    def path(self, number: int) -> str:
        """Where the zip of a slot's job lies while the job runs."""
        return self._taken[number]

    def available(self, identity: str) -> bool:
        """Say whether the store has a manifest's zip."""
        return os.path.exists(self._store.zip_path(identity))

    def take(self, identity: str, preferred: int = 0) -> int:
        """Put a manifest's zip at a free place and return its number. Raises OSError."""
        number = preferred
        while number in self._taken:
            number += 1
        source = self._store.zip_path(identity)
        try:
            if not is_own_directory(self._directory):
                self._directory = self._store.make_jobs_directory()  # somebody emptied the store
            self._taken[number] = self._linked(source, number)
        except FileNotFoundError:
            raise
        except OSError:
            self._left.append(self._directory)  # the disk is full; what runs keeps its zip there
            self._directory = self._store.make_jobs_directory()
            self._taken[number] = self._linked(source, number)
        return number

    def give_back(self, number: int) -> None:
        """Take a zip away again; the store keeps its own name of it."""
        try:
            os.unlink(self._taken.pop(number))
        except (KeyError, OSError):
            pass

    def _linked(self, source: str, number: int) -> str:
        """Put a file at the place of a number. Raises OSError, FileNotFoundError without the file."""
        target = os.path.join(self._directory, f'{number}.zip')
        try:
            os.unlink(target)
        except FileNotFoundError:
            pass
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:
            os.symlink(source, target)  # some network file systems have no hard links
        return target

    def close(self) -> None:
        """Remove the directory."""
        import shutil

        for directory in filter(is_own_directory, (self._directory, *self._left)):
            shutil.rmtree(directory, ignore_errors=True)


class JobProcess:
    """What the zygote has of a process that runs jobs: its end of a socket, the job, and the answer that came."""

    nursery = 0
    """The pid of its maker; 0: the zygote."""

    def __init__(self, sock: socket.socket) -> None:
        self.wire = process.Wire(sock)
        self.job: Any = None
        self.answer: dict[str, Any] | None = None

    def receive(self) -> bool:
        """Take the child's answer if it came; True when no more will come."""
        try:
            for message, _ in self.wire.receive():
                if not _is_answer(message):
                    raise process.Garbled
                self.answer = message
                return True
        except process.Garbled:
            # The module wrote to a descriptor that is not its own. Its exit status tells the rest, and what it writes
            # there from now on fails, as it does where there is no such descriptor.
            with contextlib.suppress(OSError):
                self.wire.socket.shutdown(socket.SHUT_RDWR)
            return True
        except (EOFError, OSError):
            return True
        return False

    def blobs(self) -> list[bytes]:
        """Return what the job wrote to stdout and stderr so far. Raises FrameError where that is too much to send."""
        raise NotImplementedError


class Slot(JobProcess):
    """One child: `job` is None while it is the spare. `sock` is the zygote's end, `nursery` the pid of its maker."""

    def __init__(self, number: int, sock: socket.socket, nursery: int = 0) -> None:
        super().__init__(sock)
        self.number = number
        self.nursery = nursery
        self.output = process.anonymous_file()
        try:
            self.errors = process.anonymous_file()
        except OSError:
            os.close(self.output)
            raise
        self.payload: int | None = None
        self.zip: int | None = None

    def begun(self) -> bool:
        """Say whether the child may have begun the job it was sent."""
        return self.payload is None or os.lseek(self.payload, 0, os.SEEK_CUR) != 0

    def read_payload(self) -> bytes:
        """Return the payload of the job that was sent."""
        return b'' if self.payload is None else process.read_whole(self.payload)

    def blobs(self) -> list[bytes]:
        frames.check_length(sum(os.fstat(descriptor).st_size for descriptor in (self.output, self.errors)))
        return [process.read_whole(self.output), process.read_whole(self.errors)]

    def close(self) -> None:
        self.wire.close()
        os.close(self.output)
        os.close(self.errors)
        if self.payload is not None:
            os.close(self.payload)


def _is_answer(message: dict[str, Any]) -> bool:
    """Say whether a message is what a child sends at its end."""
    if 'error' in message:
        numbers = (message.get(name, 0) for name in ('failed_step', 'steps_done'))
        return isinstance(message['error'], dict) and all(isinstance(number, int) for number in numbers)
    return isinstance(message.get('rc'), int)
