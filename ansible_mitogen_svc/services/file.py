# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""FileService: large files between the controller and targets, pushed and fetched by the controller.

Runs on the Session's Pool in the ansible-playbook process, one pool thread per transfer. Only workers may call it: the
paths on the controller are theirs, a target never names one and asks for nothing.

Theory of operation
1. A transfer is begun at the agent of the target, which gives its own end a thread (target/files.py). Then `put` sends
   parts, most of them unacknowledged, and `fetch` asks for parts ahead; flow.py says how far ahead.
2. Who writes keeps a temporary file; both ends hash the parts, and only a file whose size and digest are what the
   other end says gets its name. A source of `put` that changed meanwhile fails the transfer. Some files are written in
   place, see arrival.py and target/files.py.
3. Whatever goes wrong is raised here, after the other end was told to drop what it has. When the connection is lost, it
   does so by itself.
"""

from __future__ import annotations

import collections
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import mitogen.core

from ansible_mitogen_svc import service
from ansible_mitogen_svc.services import flow
from ansible_mitogen_svc.services.answers import Answer, read_answer
from ansible_mitogen_svc.services.arrival import Arrival, may_have_holes
from ansible_mitogen_svc.services.link import Buffer, Link, PendingAnswer
from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.wire import frames, transfer
from ansible_mitogen_svc.wire.file_version import full_version_of

#: Number that stands for the agent in its messages.
AGENT = 0
#: Bytes of a part, at most.
LARGEST = 1 << 20


class SourceChanged(Exception):
    """A file was written to while it was read: what arrived is neither its old nor its new content."""


class Damaged(Exception):
    """What arrived is not what was sent."""


@dataclass(frozen=True)
class Progress:
    """How far a transfer is.

    Attributes:
        path: of the file, on the controller for `put`, on the target for `fetch`.
        target: name of its context.
        done, size: bytes; `size` as it was when the transfer began.
        rate: bytes per second of late.
    """

    path: str
    target: str
    done: int
    size: int
    rate: float


#: Called now and then while a transfer runs, and with None at its end; the first argument tells transfers apart.
Report = Callable[[int, "Progress | None"], None]


class FileService(service.Service):
    """See the module."""

    def __init__(self, router: mitogen.core.Router, report: Report = lambda number, progress: None) -> None:
        super().__init__(router)
        self._router = router
        self._link = Link(router)
        self._shares = flow.Shares()
        self._report = report
        self._numbers = itertools.count(1)

    @service.expose(service.AllowParents())
    @service.arg_spec({"context_id": int, "source": str, "destination": str, "mode": int, "zygote": int})
    def put(  # noqa: PLR0913
        self, context_id: int, source: str, destination: str, mode: int, zygote: int, sha1: str = "",
        version: Sequence[int] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """Copy a file of the controller to the target.

        :param mode: what a new file gets, less the umask there; one that is replaced passes on its own.
        :param zygote: number of the one that writes, as its user; the agent does it as the login user.
        :param sha1: of the file when it was `version` (`full_version_of`).
        :returns: `size` of the file in bytes, and `known`: what the target found out about it (docs/protocol.md).
        :raises JobRefused: the target could not write it.
        :raises SourceChanged: see there.
        :raises TargetLost: the connection ended.
        """
        with open(os.fsencode(source), "rb", buffering=0) as file, self._transfer(context_id, source, zygote) as course:
            # A zygote has no threads, to sync in or to hash; what it writes lies in a task's temporary directory.
            threads = zygote == AGENT
            status = os.fstat(file.fileno())
            known = {"sha1": sha1} if sha1 and full_version_of(status) == list(version) else {}
            digests = [name for name in transfer.DIGESTS if name not in known] if threads else []
            course.begin({"op": "receive", "path": destination, "mode": mode, "durable": threads, "digests": digests})
            size = status.st_size
            course.compression = flow.Compression(transfer.shrinks(file.fileno(), size))
            reader = transfer.PartReader(file.fileno())
            course.push(reader)
            if reader.changed():
                raise SourceChanged(f"{source} was changed while it was copied")
            end = course.ask({"op": "complete", "size": reader.offset, "sha256": reader.digest.hexdigest()})
            return {"size": reader.offset, "known": _what_is_known(end.header, known)}

    @service.expose(service.AllowParents())
    @service.arg_spec({"context_id": int, "source": str, "destination": str})
    def fetch(self, context_id: int, source: str, destination: str, keep_mode: bool = False) -> dict[str, Any]:
        """Copy a file of the target to the controller.

        A source that is written to meanwhile gives what was read of it: whether that will do is for core's fetch action
        to say (``validate_checksum``).

        :param keep_mode: a new file gets that of the source, which we may write to in any case; less the umask.
        :returns: `size` received in bytes, and `known`: `version` and `digests` of the file here (wire/transfer.py).
        :raises JobRefused: the target could not read it.
        :raises OSError: the controller could not write it.
        :raises Damaged: see there.
        """
        with self._transfer(context_id, source) as course:
            place = os.fsencode(destination)
            found = course.begin({"op": "send", "path": source, "holes": may_have_holes(place)}).header
            size, mode = _size_and_mode(found, source)
            course.compression = flow.Compression(bool(found.get("shrinks")))
            with Arrival(place, mode if keep_mode else 0o666) as file:
                writer = transfer.PartWriter(file.descriptor, file.digests)
                course.pull(writer, size)
                writer.finish()
                return {"size": writer.offset, "known": file.finish()}

    @service.expose(service.AllowParents())
    @service.arg_spec({"context_id": int, "seconds": float})
    def is_moving(self, context_id: int, seconds: float) -> bool:
        """Whether a file is on its way to or from the target, and some of it arrived within `seconds`.

        On a slow link an answer to anything else may take longer than one waits for a sign of life.
        """
        return self._shares.is_moving(context_id, seconds)

    def _transfer(self, context_id: int, path: str, zygote: int = AGENT) -> Course:
        name = str(self._router.context_by_id(context_id).name)
        number = next(self._numbers)
        return Course(self._link, (context_id, zygote), number, (path, name), self._shares, self._report)


class Course:
    """One transfer, seen from here; a context manager that tells the other end when it is over. One thread."""

    def __init__(
        self, link: Link, end: tuple[int, int], number: int, names: tuple[str, str], shares: flow.Shares, report: Report
    ) -> None:
        """
        :param end: context, and number of who reads or writes there.
        :param names: of the file and of the target, for messages.
        """
        self._link = link
        self._context_id, self._zygote = end
        self._number = number
        self._path, self._target_name = names
        self._shares = shares
        self._taken = shares.taken(self._context_id)
        self._report = report
        self._over = False
        self.compression = flow.Compression(False)
        #: (bytes since the answer before, when it was asked for, the answer)
        self._asked: collections.deque[tuple[int, float, PendingAnswer]] = collections.deque()
        self._under_way = 0

    def __enter__(self) -> Course:
        self._share = self._taken.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
        self._taken.__exit__(None, None, None)
        self._report(self._number, None)
        if not self._over:
            self._link.tell(self._context_id, self._packed({"op": "discard"}))

    def begin(self, header: Mapping[str, Any]) -> Answer:
        """Begin at the other end; how long that takes is what the link's delay is at most."""
        self._link.widen(self._context_id)
        begun = time.monotonic()
        answer = self.ask(header)
        self._window = flow.Window(time.monotonic() - begun, self._share)
        return answer

    def ask(self, header: Mapping[str, Any]) -> Answer:
        """Ask and wait. Raises as `read_answer` and `PendingAnswer.get`."""
        answer = read_answer(self._link.ask(self._context_id, self._packed(header)).get())
        self._over = header["op"] == "complete"
        return answer

    def push(self, reader: transfer.PartReader) -> None:
        """Send all parts of a file and wait until they have arrived."""
        unasked = 0
        first = True
        while True:
            # What has to be compressed first shall not keep the link waiting.
            hole, data = reader.read(transfer.PART if self.compression.on else self._length())
            if reader.ended:
                break
            header, blobs = transfer.pack_part(hole, data, self.compression.on)
            _count(hole, header, blobs)
            message = self._packed({"op": "part", **header}, blobs)
            unasked += len(data)
            if first or unasked >= min(flow.ACKNOWLEDGE, self._window.size // 2) or hole:
                self._ask_ahead(unasked, message)
                unasked, first = 0, False
            else:
                self._link.tell(self._context_id, message)
            while self._asked and self._under_way + unasked > self._window.size or len(self._asked) > 64:
                self._take()
                self._tell_progress(reader.offset - self._under_way, reader.size)
        while self._asked:
            self._take()

    def pull(self, writer: transfer.PartWriter, size: int) -> None:
        """Ask for parts ahead, and write them, until the other end has no more; compares sizes and digests."""
        final = False
        while True:
            # Ahead as far as the window goes; the last question is the one for which only the end is left.
            length = self._length()
            while not final and (self._under_way + length <= self._window.size or not self._asked):
                final = writer.offset + self._under_way >= size
                question = {"op": "pull", "length": length, "compress": self.compression.on}
                self._ask_ahead(length, self._packed(question))
            answer = self._take()
            if answer.header.get("eof"):
                break
            final = final and bool(self._asked)
            writer.write(dict(answer.header), list(answer.blobs), LARGEST)
            if size and writer.offset > size:
                raise Damaged(f"{self._path} is larger than it was said to be")
            self._tell_progress(writer.offset, size)
        if (answer.header.get("size"), answer.header.get("sha256")) != (writer.offset, writer.digest.hexdigest()):
            raise Damaged(f"{self._path} did not arrive as it was sent")

    def _length(self) -> int:
        """Bytes of the next part: many where there is room for many, since each costs both ends the same."""
        return max(transfer.PART, min(LARGEST, self._window.size // 4))

    def _ask_ahead(self, size: int, message: Sequence[Buffer]) -> None:
        self._asked.append((size, time.monotonic(), self._link.ask(self._context_id, message)))
        self._under_way += size

    def _take(self) -> Answer:
        """Wait for the oldest answer that is under way."""
        size, asked, pending = self._asked.popleft()
        answer = read_answer(pending.get(), copy=False)
        self._under_way -= size
        self._shares.moved(self._context_id)
        now = time.monotonic()
        self._window.acknowledge(size, asked, now)
        self.compression.acknowledge(size, self._under_way, now)
        return answer

    def _tell_progress(self, done: int, size: int) -> None:
        self._report(self._number, Progress(self._path, self._target_name, max(0, done), size, self._window.rate()))

    def _packed(self, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> Sequence[Buffer]:
        pieces = frames.payload_pieces({**header, "transfer": self._number}, blobs)
        return frames.target_pieces(self._zygote, pieces)


def _count(hole: int, header: Mapping[str, Any], blobs: Sequence[bytes]) -> None:
    if hole:
        counters.add("transfer", "bytes_of_holes", amount=hole)
    elif "z" in header:
        counters.add("transfer", "bytes_saved", amount=header["z"] - len(blobs[0]))


def _is_number(value: object) -> TypeGuard[int]:
    """Whether a target has sent a number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _size_and_mode(header: Mapping[str, Any], path: str) -> tuple[int, int]:
    """What a target says of a file before it sends it; the mode as that of a file which we may write to.

    :raises Damaged: it says something else.
    """
    size, mode = header.get("size"), header.get("mode")
    if not _is_number(size) or not _is_number(mode) or not 0 <= size < 1 << 63:
        raise Damaged(f"{path} was announced without its size and mode")
    return size, mode & 0o777 | 0o200


def _what_is_known(header: Mapping[str, Any], ours: Mapping[str, str]) -> dict[str, Any]:
    """`version` and `digests` of a file, as a target says; {} when it says something else. Only it will be told.

    :param ours: digests that were known here.
    """
    version, digests = header.get("version"), header.get("digests")
    if not isinstance(version, list) or [type(number) for number in version] != [int] * 4:
        return {}
    if not isinstance(digests, dict) or not set(digests) <= {"sha1", "md5"}:
        return {}
    good = all(isinstance(text, str) and len(text) <= 40 for text in digests.values())
    return {"version": version, "digests": {**digests, **ours}} if good else {}
