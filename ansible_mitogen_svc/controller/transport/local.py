# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The local connection: an agent on the controller itself, started by a shell as core's plugin starts commands.

Facts from ansible/plugins/connection/local.py: the user is whoever runs ansible-playbook, whatever ``remote_user``
says, and commands run with this process's environment: with what it is when they start, as callback plugins, say, may
change it (a token that is good for an hour).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan
from ansible_mitogen_svc.controller.escalation import EscalationRefused, Refusal
from ansible_mitogen_svc.controller.identity import NotBecome
from ansible_mitogen_svc.controller.target import Hello
from ansible_mitogen_svc.controller.transport import FIRST_ENVIRONMENT


class LocalTransport:
    """See the module and `Transport`. The agent has the run's first environment, whoever starts it, and when."""

    names = frozenset({"local", "ansible.builtin.local", "ansible.legacy.local", "ansible_mitogen.svc.local"})
    packs_ahead = True
    keeps_modes = False

    def problem(self) -> str | None:
        """See `Transport`: nothing private of core's plugin is used."""
        return None

    def settings(self, connection: Any) -> tuple[Any, ...]:
        """All local tasks of a run share one agent."""
        return ("local",)

    def establish(self, connection: Any, command: str, start: Callable[[ConnectionPlan], None]) -> None:
        """See `Transport`."""
        argv = (_executable().encode(), b"-c", b"exec " + command.encode())
        start(ConnectionPlan(key="local", name="local", argv=argv, environment=FIRST_ENVIRONMENT))

    def environment_changes(self) -> Mapping[str, str | None]:
        """See `Transport`."""
        before, now = FIRST_ENVIRONMENT, dict(os.environ)
        if now == before:
            return {}
        changes: dict[str, str | None] = dict.fromkeys(before.keys() - now.keys())
        changes.update((name, value) for name, value in now.items() if before.get(name) != value)
        return changes

    def shell(self, hello: Hello) -> str:
        """See `Transport`: core's plugin starts commands with the configured shell, not the user's."""
        return _executable()

    def refused(self, connection: Any, error: EscalationRefused, seconds: float) -> AnsibleError:
        """See `Transport`; wording of core's `_ensure_become_success`."""
        if error.refusal is Refusal.TIMEOUT:
            return AnsibleConnectionFailure(_explained("Timed out", error))
        if error.refusal is Refusal.INCORRECT:
            return AnsibleError(_explained("Duplicate become password prompt encountered", error))
        return AnsibleError(_explained("Premature end of stream", error))

    def ended(self, error: NotBecome) -> AnsibleError:
        """See `Transport`: a refusal that sudo, say, is not known to have words for."""
        return AnsibleError(_explained("Premature end of stream", error))


TRANSPORT = LocalTransport()


def _executable() -> str:
    return constants.DEFAULT_EXECUTABLE.split()[0] if constants.DEFAULT_EXECUTABLE else "/bin/sh"


def _explained(reason: str, error: EscalationRefused | NotBecome) -> str:
    text = f"{reason} waiting for become success{' or become password prompt' if error.awaits_prompt else ''}."
    if error.stdout:
        text += f"\n>>> Standard Output\n{error.stdout.decode('utf-8', 'replace')}"
    if error.stderr:
        text += f"\n>>> Standard Error\n{error.stderr.decode('utf-8', 'replace')}"
    return text
