# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Transports: how a connection plugin's own command is turned into something the Session can start.

One file per connection type, named after the plugin, with a `TRANSPORT` in it: nothing else to touch. It is imported
when the first connection of its type is met. Called by the connection mixin in a task worker.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol, cast

from ansible.errors import AnsibleError
from ansible.release import __version__ as core_version
from ansible.utils.display import Display

from ansible_mitogen_svc.controller import settings
from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan
from ansible_mitogen_svc.controller.escalation import EscalationRefused
from ansible_mitogen_svc.controller.identity import NotBecome
from ansible_mitogen_svc.controller.target import Hello
from ansible_mitogen_svc.services.bootstrap import StartFailure

#: The environment of the run's process before any task; workers that are forked later have it, too.
FIRST_ENVIRONMENT: Mapping[str, str] = dict(os.environ)


class Transport(Protocol):
    """One connection type. Stateless: everything it needs is in the connection plugin it is given."""

    #: Names of the connection plugins it serves, as core resolves them, and as a play may shorten them.
    names: frozenset[str]
    #: Whether core hears that modules need no file before it is known that an agent can run. Where that is so, core
    #: packs the module while the connection is made.
    packs_ahead: bool
    #: Whether the plugin gives a file it puts the mode of the one here (sftp); else it gets the default mode.
    keeps_modes: bool

    def problem(self) -> str | None:
        """Why connections are left to this ansible-core, as a clause for a warning; None when they are ours."""

    def settings(self, connection: Any) -> tuple[Any, ...]:
        """What distinguishes one connection from another, quickly; equal settings give equal plans."""

    def establish(self, connection: Any, command: str, start: Callable[[ConnectionPlan], None]) -> None:
        """Compose the plan for `command` and call `start` with it, as often as the plugin's options say.

        :raises AnsibleError: with core's words and types when the connection could not be made.
        :raises StartFailure: when something was reached, but no agent came up there.
        """

    def environment_changes(self) -> Mapping[str, str | None]:
        """What has changed, since the agent was started, of an environment that commands have in common with us;
        variables that are gone are None.
        """

    def shell(self, hello: Hello) -> str:
        """Path of the shell that runs what core passes to the plugin's `exec_command`."""

    def refused(self, connection: Any, error: EscalationRefused, seconds: float) -> AnsibleError:
        """The plugin's exception for a become command that refused, or was silent for `seconds`.

        :raises NotBecome: the plugin has none, and what the command said is the result.
        """

    def ended(self, error: NotBecome) -> AnsibleError | None:
        """The plugin's exception for a become command that ended before it had become; None: the plugin has none,
        and what the command said is the result.
        """


@functools.cache
def _named(name: str) -> Transport | None:
    """The transport in the file of a plugin's name, if it serves the plugin of that full name with this core."""
    file = name.rpartition(".")[2]
    if not file.isidentifier() or file.startswith("_"):
        return None
    module = f"{__name__}.{file}"
    try:
        transport = cast(Transport, importlib.import_module(module).TRANSPORT)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return transport if name in transport.names and _is_usable(cast(Hashable, transport)) else None


@functools.cache
def _is_usable(transport: Transport) -> bool:
    """Whether a transport has what it needs of this core; warns once per process when it has not."""
    problem = transport.problem()
    if problem is not None:
        Display().warning(
            f"ansible_mitogen.svc does not know ansible-core {core_version} ({problem}): such connections are core's "
            "own for this run. Update the collection ansible_mitogen.svc."
        )
    return problem is None


@functools.cache
def _third_party(name: str) -> Transport:
    from ansible_mitogen_svc.controller.local_command import LocalCommandTransport

    transport = LocalCommandTransport()
    transport.names = frozenset({name})
    return transport


def _find(name: str) -> Transport | None:
    found = _named(name)
    # Core gives plugins beside a playbook no namespace.
    full = name if "." in name else f"ansible.legacy.{name}"
    if found is None and full in settings.current().local_command_plugins:
        return _third_party(name)
    return found


def is_handled(connection_name: str) -> bool:
    """Whether a connection plugin, by the name a play or core gives it, is served by a transport."""
    return _find(connection_name) is not None


def transport_for(connection: Any) -> Transport | None:
    """The transport of a loaded connection plugin; None leaves it to core."""
    return _find(str(getattr(connection, "ansible_name", None) or getattr(connection, "_load_name", "")))


__all__ = ["ConnectionPlan", "StartFailure", "Transport", "is_handled", "transport_for"]
