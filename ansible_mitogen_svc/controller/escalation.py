# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The talk with a become command until it has become: prompts, password, success, refusal.

Called by `controller/identity.py` in a task worker, with what the agent reports of the started process. Whether a
line is
a prompt, a success or a refusal is for the become plugin to say (ansible/plugins/become/__init__.py); the order of
the questions is that of core's ssh plugin (`_bare_run` and `_examine_output`).
"""

from __future__ import annotations

import enum
from typing import Any

from ansible.module_utils.common.text.converters import to_bytes


class Refusal(enum.Enum):
    """Why a become command did not become."""

    INCORRECT = "Incorrect"
    MISSING = "Missing"
    TIMEOUT = "Timeout"


class EscalationRefused(Exception):
    """The become command refused, or said nothing for too long.

    Attributes:
        refusal: the reason.
        stdout, stderr: what it had printed, without the password prompt's line.
        awaits_prompt: whether there is a password that it had not asked for yet.
    """

    def __init__(self, refusal: Refusal, stdout: bytes, stderr: bytes, awaits_prompt: bool = False) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
        self.stdout = stdout
        self.stderr = stderr
        self.awaits_prompt = awaits_prompt


class Escalation:
    """One become command's talk.

    Feed it output with `hear`; what it returns is to be written to the command's input. `succeeded` tells the end.
    """

    def __init__(self, become: Any) -> None:
        """:param become: the become plugin that built the command, with the prompt and marker of that command."""
        self._become = become
        self._partial = {"stdout": b"", "stderr": b""}
        self.output = {"stdout": b"", "stderr": b""}
        self.succeeded = False
        self._awaiting_prompt = bool(getattr(become, "prompt", None))
        self._password_sent = False

    def hear(self, stdout: bytes, stderr: bytes) -> bytes:
        """Take new output.

        :returns: bytes to write to the command's input, most often none.
        :raises EscalationRefused: it will not become.
        """
        answer = b""
        for source, data in (("stdout", stdout), ("stderr", stderr)):
            lines = (self._partial[source] + data).splitlines(True)
            self._partial[source] = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
            for line in lines:
                answer += self._consider(source, line)
            if self._partial[source]:
                kept = self._partial[source]
                self._partial[source] = b""
                answer += self._consider(source, kept, partial=True)
        return answer

    def _consider(self, source: str, line: bytes, partial: bool = False) -> bytes:
        become = self._become
        if self.succeeded:
            self.output[source] += line
        elif become.expect_prompt() and become.check_password_prompt(line):
            return self._prompted(source)
        elif become.success and become.check_success(line):
            self.succeeded = True
        elif self._looks_for_refusals and become.check_incorrect_password(line):
            self._refuse(Refusal.INCORRECT, source, line)
        elif self._looks_for_refusals and become.check_missing_password(line):
            self._refuse(Refusal.MISSING, source, line)
        elif partial:
            # It may be the beginning of a prompt.
            self._partial[source] = line
        else:
            self.output[source] += line
        return b""

    @property
    def _looks_for_refusals(self) -> bool:
        """Core does not before a prompt that the plugin announces: such a command is left to end by itself."""
        return self._password_sent or not self._awaiting_prompt

    def _prompted(self, source: str) -> bytes:
        if self._password_sent:
            # Asked again without a word about the first answer.
            self._refuse(Refusal.INCORRECT, source, b"")
        self._password_sent = True
        return bytes(to_bytes(self._become.get_option("become_pass") or "", errors="surrogate_or_strict")) + b"\n"

    def timed_out(self) -> EscalationRefused:
        """The error for a command that says nothing."""
        self._flush()
        return EscalationRefused(Refusal.TIMEOUT, self.output["stdout"], self.output["stderr"], self.awaits_prompt)

    @property
    def awaits_prompt(self) -> bool:
        """Whether there is a password that the command has not asked for yet."""
        return bool(self._become.expect_prompt()) and not self._password_sent

    def closed(self) -> tuple[bytes, bytes]:
        """The command ended without having become: its output."""
        self._flush()
        return self.output["stdout"], self.output["stderr"]

    def _refuse(self, refusal: Refusal, source: str, line: bytes) -> None:
        self.output[source] += line
        raise EscalationRefused(refusal, self.output["stdout"], self.output["stderr"])

    def _flush(self) -> None:
        for source, rest in self._partial.items():
            self.output[source] += rest
        self._partial = {"stdout": b"", "stderr": b""}
