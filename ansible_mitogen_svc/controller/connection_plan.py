# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What the two kinds of session share: plans, targets by key, and the way to the ConnectionService.

Used by `session.py` (the ansible-playbook process) and `worker_session.py` (forked workers), in any thread.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mitogen.core
import mitogen.parent

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.payload import PayloadSplitter
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services.bootstrap import StartFailure
from ansible_mitogen_svc.services.connection import ConnectFailed
from ansible_mitogen_svc.wire import frames

#: Bytes; a module's whole output travels in one message.
MAX_MESSAGE_SIZE = frames.MAX_PAYLOAD


@dataclass(frozen=True)
class ConnectionPlan:
    """What to start for a connection; made by a transport.

    Attributes:
        key: names the configuration; equal keys share a connection.
        name: for messages, such as ``ssh web1``.
        argv: program and arguments; see services/connection.py for the placeholder within.
        environment: whole environment of the program or None.
        password: for a program that reads it from a descriptor (sshpass).
        cwd: working directory on the controller or None.
        timeout: seconds until the attempt is given up.
    """

    key: str
    name: str
    argv: tuple[bytes, ...]
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    password: bytes | None = field(default=None, repr=False)
    cwd: str | None = None
    timeout: float = 60.0


#: Keeps passwords out of the keys, which are compared and may be logged, but tells two passwords apart.
_SALT = os.urandom(16)


def plan_key(argv: Sequence[bytes], *more: bytes) -> str:
    """`ConnectionPlan.key` for a command and whatever else makes it another connection, such as the password."""
    digest = hashlib.blake2b(key=_SALT, digest_size=20)
    for part in (*argv, b"", *more):
        digest.update(part + b"\0")
    return digest.hexdigest()


class TaskSession(Protocol):
    """What a task worker may ask of the session, in whichever process it runs."""

    splitter: PayloadSplitter

    def connect(self, plan: ConnectionPlan, host: str) -> Target:
        """Connect or reuse. :raises StartFailure: the attempt failed."""

    def known_target(self, key: str) -> Target | None:
        """The live target of a key, when this process has it already."""

    def hold(self, key: str) -> None:
        """A task uses the connection of a key from now on: it is not closed to make room for another."""

    def release(self, key: str) -> None:
        """The task has ended."""

    def note_use(self, key: str, host: str) -> None:
        """Note that an inventory host's tasks use a connection."""

    def move_file(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call the FileService. :raises CallFailed: with the type of what went wrong there."""

    def is_moving(self, target: Target, seconds: float) -> bool:
        """Whether a file is on its way there or from there, and some of it arrived within `seconds`."""

    def disconnect(self, target: Target) -> None:
        """End the connection; the next `connect` starts anew."""

    def explain_end(self, target: Target | None) -> str:
        """What ended a connection, for a message."""


class Targets:
    """Targets of this process by key, with what is shared between `Session` and `WorkerSession`."""

    def __init__(self) -> None:
        # Guards `_by_key`.
        self._targets_lock = threading.Lock()
        self._by_key: dict[str, Target] = {}
        self._uses: set[tuple[str, str]] = set()

    def note_use(self, key: str, host: str) -> None:
        """Note that an inventory host's tasks use a connection, perhaps one that another host's tasks made."""
        if (key, host) not in self._uses:
            self._uses.add((key, host))
            self.tell_use(key, host)

    def tell_use(self, key: str, host: str) -> None:
        """Let the ConnectionService know of a use."""
        raise NotImplementedError

    def forget_uses(self, host: str) -> None:
        """The connections of a host are reset: uses of the next ones are told again."""
        self._uses = {use for use in self._uses if use[1] != host}

    def known_target(self, key: str) -> Target | None:
        """The live target of a key, when this process has it already."""
        target = self._by_key.get(key)
        return target if target is not None and target.alive else None

    def all_targets(self) -> list[Target]:
        """The live targets of this process."""
        with self._targets_lock:
            return [target for target in self._by_key.values() if target.alive]

    def remember(self, target: Target, router: mitogen.parent.Router) -> Target:
        with self._targets_lock:
            known = self._by_key.get(target.key)
            if known is not None and known.alive and known.context_id == target.context_id:
                return known
            self._by_key[target.key] = target

        def lost() -> None:
            target.alive = False

        context = router.context_by_id(target.context_id)
        mitogen.core.listen(context, "disconnect", lost)
        if router.stream_by_id(target.context_id) is None:
            lost()  # before anybody listened
        return target


def plan_arguments(plan: ConnectionPlan) -> dict[str, Any]:
    command = {
        "argv": list(plan.argv),
        "environment": None if plan.environment is None else dict(plan.environment),
        "password": plan.password,
        "cwd": plan.cwd,
    }
    return {"key": plan.key, "name": plan.name, "command": command, "timeout": float(plan.timeout)}


def start_failure(error: service.CallFailed) -> StartFailure:
    if error.type_name.endswith("." + ConnectFailed.__name__):
        return ConnectFailed.failure(error.message)
    return StartFailure(None, b"", str(error).encode(), "pool")
