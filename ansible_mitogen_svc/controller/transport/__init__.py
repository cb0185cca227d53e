# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Transports: how a connection plugin's own command is turned into something the Session can start.

One file per connection type, one class in it, and its line in `TRANSPORTS`: nothing else to touch. Called by the
connection mixin in a task worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ansible.errors import AnsibleError

from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan
from ansible_mitogen_svc.controller.escalation import EscalationRefused
from ansible_mitogen_svc.controller.target import Hello
from ansible_mitogen_svc.controller.transport.local import LocalTransport
from ansible_mitogen_svc.controller.transport.ssh import SshTransport
from ansible_mitogen_svc.services.bootstrap import StartFailure

#: Composes the remote shell line that starts the agent; see services/bootstrap.py.
RemoteCommand = Callable[[], str]


class Transport(Protocol):
    """One connection type. Stateless: everything it needs is in the connection plugin it is given."""

    #: Names of the connection plugins it serves, as core resolves them.
    names: frozenset[str]

    def settings(self, connection: Any) -> tuple[Any, ...]:
        """What distinguishes one connection from another, quickly; equal settings give equal plans."""

    def establish(self, connection: Any, command: str, start: Callable[[ConnectionPlan], None]) -> None:
        """Compose the plan for `command` and call `start` with it, as often as the plugin's options say.

        :raises AnsibleError: with core's words and types when the connection could not be made.
        :raises StartFailure: when something was reached, but no agent came up there.
        """

    def shell(self, hello: Hello) -> str:
        """Path of the shell that runs what core passes to the plugin's `exec_command`."""

    def refused(self, connection: Any, error: EscalationRefused, seconds: float) -> AnsibleError:
        """The plugin's exception for a become command that refused, or was silent for `seconds`."""


TRANSPORTS: tuple[Transport, ...] = (SshTransport(), LocalTransport())
_BY_NAME = {name: transport for transport in TRANSPORTS for name in transport.names}


def is_handled(connection_name: str) -> bool:
    """Whether a connection plugin, by the name a play or core gives it, is served by a transport."""
    return connection_name in _BY_NAME


def transport_for(connection: Any) -> Transport | None:
    """The transport of a loaded connection plugin; None leaves it to core."""
    return _BY_NAME.get(str(getattr(connection, "ansible_name", None) or getattr(connection, "_load_name", "")))


__all__ = ["TRANSPORTS", "ConnectionPlan", "StartFailure", "Transport", "is_handled", "transport_for"]
