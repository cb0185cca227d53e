# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Identities: which zygote of a target runs a job, and how one is started that is not there yet.

Called by the connection mixin in a task worker, with the command that core composed for a bare interpreter (become
command, shell, interpreter), so that any become plugin and any interpreter work without being known here.

Theory of operation
1. The identity is a hash of that command, with the become plugin's random marker taken out, and of the password.
2. The agent keeps the names of identities. The first task that asks for an unknown one is told to start it, all others
   wait there until it is adopted: one `sudo` per target and identity, however many tasks ask. When it is abandoned, or
   its starter is not heard of any more, they ask again.
3. An interpreter that is the agent's own (same file in the same directory, hence the same virtual environment) needs no
   process of its own: that is the login zygote. Unless the shell that it shall be started by is not there.
4. Starting: the agent runs the command in the login user's shell, as sshd would; `Escalation` talks to it; then it is
   given the boot text and becomes a zygote.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible_mitogen_svc.controller import settings
from ansible_mitogen_svc.controller.escalation import Escalation
from ansible_mitogen_svc.controller.target import AGENT, LOGIN, Hello, Target, Zygote
from ansible_mitogen_svc.services.answers import Answer, JobRefused, ZygoteLost
from ansible_mitogen_svc.services.link import AnswerTimeout
from ansible_mitogen_svc.statistics import counters

_SALT = os.urandom(16)
#: Seconds a started zygote may take from its first line of code to its hello.
ADOPTION_TIMEOUT = 60.0


@dataclass(frozen=True)
class Identity:
    """Who runs a job, and with what.

    Attributes:
        command: shell command, as core composed it, that runs the first stage of a zygote.
        interpreter: the interpreter in it, as core named it.
        become: the become plugin that wrapped the command; None when it is not wrapped.
        timeout: seconds that the become command may be silent.
        name: see `identify`.
        shell: what core composed the command for (``ansible_shell_executable``).
    """

    command: str = field(repr=False)
    interpreter: str
    become: Any
    timeout: float
    name: str
    shell: str = ""


def identify(command: str, interpreter: str, become: Any, timeout: float, shell: str = "") -> Identity:
    """The identity of a composed command."""
    digest = hashlib.blake2b(key=_SALT, digest_size=16)
    wrapped = become is not None and bool(become._id) and become._id in command
    if wrapped:
        command_name = command.replace(become._id, "")
        digest.update((become.get_option("become_pass") or "").encode("utf-8", "surrogateescape") + b"\0")
    else:
        command_name = command
    digest.update(command_name.encode("utf-8", "surrogateescape"))
    return Identity(command, interpreter, become if wrapped else None, timeout, digest.hexdigest(), shell)


@dataclass(eq=False)
class NotBecome(Exception):
    """The command ended before it had become: what it left behind is the result of the task, as under core, where
    the transport has no exception for it (`Transport.ended`).

    Attributes:
        rc: exit status; None when it is not known.
        stdout, stderr: its output.
        awaits_prompt: whether there is a password that it had not asked for yet.
    """

    rc: int | None
    stdout: bytes
    stderr: bytes
    awaits_prompt: bool = False


class InterpreterFailed(Exception):
    """The command became, but what it ran is no Python that could be made a zygote; the text says what it was.

    Attributes:
        reason: for the statistics.
    """

    reason = "interpreter did not start"


class CodeRefused(InterpreterFailed):
    """A zygote cannot import core's `module_utils`, or cannot have the job's code; nothing of the job was done."""

    #: By the kind of the refusal, as docs/protocol.md has it.
    REASONS: ClassVar[Mapping[str, str]] = {
        "BaseSetFailed": "module_utils cannot be imported",
        "ManifestLost": "code did not arrive",
    }

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.reason = self.REASONS[kind]


def zygote_for(target: Target, identity: Identity, shell: str) -> tuple[Zygote, str]:
    """The zygote of an identity, started when it is not there, and the path its interpreter goes by.

    :param shell: path of the shell that runs the login user's commands.
    :raises EscalationRefused: the become command refused or was silent.
    :raises NotBecome: it ended.
    :raises InterpreterFailed: it did not, and the interpreter is none.
    :raises TargetLost: the connection ended.
    """
    known = target.zygote(identity.name)
    if known is not None:
        return known, known.executable or known.hello.executable
    answer = _resolve(target, identity)
    if "start" in answer.header:
        counters.add("identities", "recycled", amount=int(answer.header.get("recycled", 0)))
        return _start(target, identity, shell)
    number = int(answer.header["zygote"])
    executable = str(answer.header["executable"])
    login = target.zygote(LOGIN)
    if login is not None and login.number == number:
        zygote = target.alias_zygote(identity.name, login, executable)
    else:
        zygote = target.add_zygote(identity.name, number, Hello.from_header(answer.header), executable)
    return zygote, executable


def _resolve(target: Target, identity: Identity) -> Answer:
    """Ask for an identity's zygote, once more where the task that was to start it could not, or was killed."""
    patience = identity.timeout + ADOPTION_TIMEOUT
    limit = settings.current().identity_limit
    question = {"op": "resolve", "identity": identity.name, "limit": limit, "patience": patience}
    if identity.become is None:
        question.update(interpreter=identity.interpreter, shell=identity.shell)
    late = False
    while True:
        try:
            answer = target.call(AGENT, question, timeout=patience)
        except AnswerTimeout as error:
            if late:
                raise InterpreterFailed(f"another task was to start it, and has not in {2 * patience:.0f} s") from error
            late = True
        else:
            if "again" not in answer.header:
                return answer


def _start(target: Target, identity: Identity, shell: str) -> tuple[Zygote, str]:
    number = 0
    try:
        argv = [shell, "-c", identity.command]
        tty = identity.become is not None and not identity.become.pipelining
        number = int(target.call(AGENT, {"op": "start", "argv": argv, "tty": tty}).header["zygote"])
        if identity.become is not None:
            _escalate(target, identity, number)
        header = {"op": "adopt", "zygote": number, "identity": identity.name}
        answer = target.call(AGENT, header, timeout=ADOPTION_TIMEOUT)
        hello = Hello.from_header(answer.header)
    except BaseException as error:
        target.cast(AGENT, {"op": "abandon", "identity": identity.name, "zygote": number})
        if isinstance(error, (ZygoteLost, AnswerTimeout, JobRefused)):
            raise InterpreterFailed(str(error)) from error
        raise
    counters.add("identities", "started")
    return target.add_zygote(identity.name, number, hello, hello.executable), hello.executable


def _escalate(target: Target, identity: Identity, number: int) -> None:
    talk = Escalation(identity.become)
    said = b""
    while not talk.succeeded:
        try:
            answer = target.call(AGENT, {"op": "converse", "zygote": number}, [said], timeout=identity.timeout)
        except AnswerTimeout:
            raise talk.timed_out() from None
        said = talk.hear(*answer.blobs)
        if answer.header["closed"] and not talk.succeeded:
            raise NotBecome(answer.header["rc"], *talk.closed(), talk.awaits_prompt)
