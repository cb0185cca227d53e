# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""FileService: large files between the controller and targets, pushed and fetched by the controller.

Runs on the Session's Pool in the ansible-playbook process, one pool thread per transfer. Only workers may call it: the
paths on the controller are theirs, a target never names one.

Theory of operation
1. `put` appends to a file that the worker has begun (the first part travels with the task's own message): parts of
   `CHUNK` bytes, most of them unacknowledged. After `WINDOW` bytes one answer is waited for, so memory is bounded
   on both sides and messages of other tasks find their way between the parts.
2. An unacknowledged part that could not be written shows at the end: the size there must be what was sent.
3. `fetch` asks for `READ_SIZE` bytes at a time into a file beside the destination, which then takes its name.
"""

from __future__ import annotations

import os
import tempfile

import mitogen.core

from ansible_mitogen_svc import service
from ansible_mitogen_svc.services.answers import Answer, JobRefused, read_answer
from ansible_mitogen_svc.services.link import Link
from ansible_mitogen_svc.wire import frames

#: Bytes per message: enough to keep the link busy, little enough to let other messages pass.
CHUNK = 128 * 1024
#: Bytes under way before one answer is waited for.
WINDOW = 8 << 20
#: Bytes asked for at once when a file is fetched.
READ_SIZE = 1 << 20


class FileService(service.Service):
    """See the module."""

    def __init__(self, router: mitogen.core.Router) -> None:
        super().__init__(router)
        self._link = Link(router)

    @service.expose(service.AllowParents())
    @service.arg_spec({"context_id": int, "zygote": int, "source": str, "offset": int, "destination": str})
    def put(self, context_id: int, zygote: int, source: str, offset: int, destination: str) -> int:
        """Append a file of the controller, from `offset` on, to one of the target that has that many bytes.

        :returns: bytes sent.
        :raises JobRefused: the target could not write it.
        :raises TargetLost: or ZygoteLost, as the names say.
        """
        header = {"op": "steps", "steps": [["append", destination, 0]]}
        sent = unacknowledged = 0
        with open(os.fsencode(source), "rb") as file:
            file.seek(offset)
            while data := file.read(CHUNK):
                sent += len(data)
                unacknowledged += len(data)
                message = frames.pack_target(zygote, frames.pack_payload(header, [data]))
                if unacknowledged >= WINDOW:
                    read_answer(self._link.ask(context_id, message).get())
                    unacknowledged = 0
                else:
                    self._link.tell(context_id, message)
        there = int(self._read(context_id, zygote, destination, offset + sent, 0).header["size"])
        if there != offset + sent:
            message_text = f"{destination} has {there} of {offset + sent} bytes: is the file system full?"
            raise JobRefused(message_text, "incomplete")
        return sent

    @service.expose(service.AllowParents())
    @service.arg_spec({"context_id": int, "zygote": int, "source": str, "destination": str})
    def fetch(self, context_id: int, zygote: int, source: str, destination: str) -> int:
        """Copy a file of the target to the controller.

        :returns: bytes received.
        :raises JobRefused: the target could not read it.
        :raises OSError: the controller could not write it.
        """
        path = os.fsencode(destination)
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or b".", prefix=b".svc-fetch-")
        try:
            with open(descriptor, "wb") as file:
                offset, ended = 0, False
                while not ended:
                    answer = self._read(context_id, zygote, source, offset, READ_SIZE)
                    file.write(answer.blobs[0])
                    offset += len(answer.blobs[0])
                    ended = bool(answer.header["eof"]) or not answer.blobs[0]
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return offset

    def _read(self, context_id: int, zygote: int, path: str, offset: int, length: int) -> Answer:
        header = {"op": "read", "path": path, "offset": offset, "length": length}
        message = frames.pack_target(zygote, frames.pack_payload(header))
        return read_answer(self._link.ask(context_id, message).get())


def _umask() -> int:
    """This process's umask; there is no way to read it but to set it, /proc apart."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
