# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Files between the controller and a target, for the connection plugins' `put_file` and `fetch_file`.

Called in a task worker. A small file for the task's temporary directory is a step that travels with the next job;
others are the FileService's to move (services/file.py): nothing may come after them.
"""

from __future__ import annotations

import os
import time
from typing import IO, Any, Protocol

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.utils.display import Display

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.compat import copied_files, fetched_files
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.controller.steps import OwnDirectory
from ansible_mitogen_svc.controller.target import AGENT, Target, round_trips
from ansible_mitogen_svc.services.answers import ZygoteLost
from ansible_mitogen_svc.services.link import TargetLost
from ansible_mitogen_svc.spans import TRANSFER, recorder
from ansible_mitogen_svc.statistics import counters

display = Display()
#: Bytes that travel within a message of a task.
SMALL = 256 << 10


class Carrier(Protocol):
    """What is needed of a connection."""

    svc_steps: Any
    svc_directory: OwnDirectory | None
    svc_known_files: list[dict[str, Any]]

    def svc_flush(self) -> None:
        """Carry out waiting steps."""

    def svc_is_temporary(self, path: str) -> bool:
        """Whether a file there is for a job that is still to come."""


def put(carrier: Carrier, target: Target, file: IO[bytes], out_path: str, mode: int) -> None:
    """Copy an open file of the controller to `out_path`, as the login user; or as who owns the temporary directory.

    :param mode: what a new file gets, less the umask there.
    :raises AnsibleError: the target could not write it.
    """
    started = time.monotonic()
    source = to_text(file.name, errors="surrogateescape")
    display.vvv(f"PUT {source} TO {out_path}", host=target.name)
    size = os.fstat(file.fileno()).st_size
    owner = carrier.svc_directory
    own = owner is not None and owner.has(out_path)
    if size > SMALL or not carrier.svc_is_temporary(out_path):
        carrier.svc_flush()
        zygote = owner.zygote.number if owner is not None and own else AGENT
        sha1, version = copied_files.sha1_of(source)
        moved = _moved(
            target, "put", source=source, destination=out_path, mode=mode, zygote=zygote, sha1=sha1, version=version
        )
        if moved["known"]:
            carrier.svc_known_files.append({"path": _plain(out_path), **moved["known"]})
        sent = int(moved["size"])
    else:
        data = file.read()
        carrier.svc_steps.add("put", out_path, mode, data=data)
        sent = len(data)
    _count(sent, started)


def fetch(carrier: Carrier, target: Target, in_path: str, out_path: str, keep_mode: bool) -> None:
    """Copy a file of the target to `out_path` on the controller, as the login user.

    :param keep_mode: a new file gets the mode of the one there.
    :raises AnsibleError: the target could not read it.
    """
    carrier.svc_flush()
    started = time.monotonic()
    display.vvv(f"FETCH {in_path} TO {out_path}", host=target.name)
    destination = to_text(out_path, errors="surrogateescape")
    moved = _moved(target, "fetch", source=in_path, destination=destination, keep_mode=keep_mode)
    fetched_files.note(destination, moved["known"]["version"], moved["known"]["digests"])
    _count(int(moved["size"]), started)


def _moved(target: Target, method: str, **arguments: Any) -> dict[str, Any]:
    """Have the FileService move a file; what that returns."""
    round_trips.count += 1
    target.count_job()
    # Paths may be core's tagged strings, which a request to another process cannot carry.
    arguments = {name: _plain(value) for name, value in arguments.items()}
    try:
        return session_lifecycle.current().move_file(method, context_id=target.context_id, **arguments)
    except service.CallFailed as error:
        raise _as_ours(error, target) from None


def _plain(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _as_ours(error: service.CallFailed, target: Target) -> Exception:
    kind = error.type_name.rpartition(".")[2]
    if kind == TargetLost.__name__:
        return TargetLost(error.message)
    if kind in ("ZygoteLost", "ZygoteGone"):
        return ZygoteLost(error.message)
    refused: Exception = AnsibleError(f"failed to transfer a file to or from {target.name}: {error.message}")
    return refused


def _count(size: int, started: float) -> None:
    counters.add("transfer", "files")
    counters.add("transfer", "bytes", amount=size)
    counters.add("seconds", "transfer", amount=time.monotonic() - started)
    recorder.waited(TRANSFER, started)
