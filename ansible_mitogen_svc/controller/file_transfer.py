# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Files between the controller and a target, for the connection plugins' `put_file` and `fetch_file`.

Called in a task worker. A small file is a step that travels with the next job; a large one goes in chunks, most of them
unacknowledged: every `WINDOW` bytes one answer is waited for, so that memory is bounded on both sides.
"""

from __future__ import annotations

import os
import time
from typing import IO, Any, Protocol

from ansible.module_utils.common.text.converters import to_bytes
from ansible.utils.display import Display

from ansible_mitogen_svc.controller.target import LOGIN, Answer, Target, Zygote
from ansible_mitogen_svc.statistics import counters

display = Display()

#: Bytes per message: enough to keep the link busy, little enough to let other messages pass.
CHUNK = 128 * 1024
#: Bytes under way before one answer is waited for.
WINDOW = 8 << 20
#: Bytes asked for at once when a file is fetched.
READ_SIZE = 1 << 20


class Carrier(Protocol):
    """What is needed of a connection."""

    svc_steps: Any

    def svc_flush(self) -> None:
        """Carry out waiting steps."""

    def svc_call(self, target: Target, zygote: Zygote, header: dict[str, Any], blobs: list[bytes]) -> Answer:
        """Ask a zygote."""


def put(carrier: Carrier, target: Target, file: IO[bytes], out_path: str, mode: int) -> None:
    """Copy an open file of the controller to `out_path`, as the login user.

    :param mode: what a new file gets, less the umask there.
    :raises AnsibleError: the target could not write it.
    """
    started = time.monotonic()
    display.vvv(f"PUT {file.name} TO {out_path}", host=target.name)
    data = file.read(CHUNK)
    carrier.svc_steps.add("put", out_path, mode, data=data)
    sent = len(data)
    if os.fstat(file.fileno()).st_size > sent:
        carrier.svc_flush()
        zygote = target.zygote(LOGIN)
        assert zygote is not None
        sent += _push(carrier, target, zygote, file, out_path)
    _count(sent, started)


def _push(carrier: Carrier, target: Target, zygote: Zygote, file: IO[bytes], out_path: str) -> int:
    header = {"op": "steps", "steps": [["append", out_path, 0]]}
    sent = unacknowledged = 0
    while data := file.read(CHUNK):
        sent += len(data)
        unacknowledged += len(data)
        if unacknowledged >= WINDOW:
            carrier.svc_call(target, zygote, header, [data])
            unacknowledged = 0
        else:
            target.cast(zygote.number, header, [data])
    carrier.svc_call(target, zygote, {"op": "steps", "steps": []}, [])
    return sent


def fetch(carrier: Carrier, target: Target, in_path: str, out_path: str) -> None:
    """Copy a file of the target to `out_path` on the controller, as the login user.

    :raises AnsibleError: the target could not read it.
    """
    carrier.svc_flush()
    started = time.monotonic()
    zygote = target.zygote(LOGIN)
    assert zygote is not None
    display.vvv(f"FETCH {in_path} TO {out_path}", host=target.name)
    offset = 0
    with open(to_bytes(out_path, errors="surrogate_or_strict"), "wb") as file:
        while True:
            header = {"op": "read", "path": in_path, "offset": offset, "length": READ_SIZE}
            answer = carrier.svc_call(target, zygote, header, [])
            file.write(answer.blobs[0])
            offset += len(answer.blobs[0])
            if answer.header["eof"] or not answer.blobs[0]:
                break
    _count(offset, started)


def _count(size: int, started: float) -> None:
    counters.add("transfer", "files")
    counters.add("transfer", "bytes", amount=size)
    counters.add("seconds", "transfer", amount=time.monotonic() - started)
