# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Hops: a host that is reached from another inventory host, the one its ``ansible_mitogen_svc_via`` names.

Used by `reach.py` in a task worker, any thread.

Theory of operation
1. The host's transport composes the plan as always; the plan is then a command for the hop instead of for the
   controller, and the hop's own connection plugin is asked for what it would start to run that. So any plugins combine:
   a container on a host behind a bastion is ``docker exec`` in ssh in ssh.
2. The hop is an inventory host with its own variables, perhaps a hop of its own; no agent runs there.
3. Files that the command names, such as keys, are the hop's. What is handed to a program by descriptor or environment,
   such as a password, cannot reach the hop without being seen there, and is refused.
4. There is no other way to such a host: where no agent can run it is unreachable.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_mitogen_svc.controller import transport
from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan, plan_key
from ansible_mitogen_svc.services.bootstrap import PASSWORD_FD

#: The variable that names a hop.
VIA = "ansible_mitogen_svc_via"


class Hop:
    """The way through one intermediate host."""

    def __init__(
        self, name: str, variables: Mapping[str, Any], templar: Any, timeout: Any, seen: tuple[str, ...]
    ) -> None:
        """:raises AnsibleError: the hop is no host of the inventory, or cannot be one."""
        hostvars = variables.get("hostvars") or {}
        if name not in hostvars:
            raise AnsibleError(f"{VIA} names {name!r}, which is not a host of the inventory.")
        if name in seen:
            raise AnsibleError(f"{VIA} leads in a circle: {' -> '.join((*seen, name))}.")
        self.name = name
        theirs = hostvars[name]
        kind = str(theirs.get("ansible_connection", "ssh"))
        context = PlayContext()
        context.remote_addr = theirs.get("ansible_host", name)
        context.port = theirs.get("ansible_port")
        context.remote_user = theirs.get("ansible_user") or context.remote_user
        context.timeout = timeout
        connection = connection_loader.get(kind, context, None)
        found = transport.transport_for(connection) if connection is not None else None
        if found is None:
            raise AnsibleError(f"{name} cannot be a hop ({VIA}): nothing is known of connection {kind!r}.")
        options = connection._resolve_option_variables(theirs, templar)
        connection.set_options(task_keys={"timeout": timeout}, var_options=options)
        connection.svc_plugin_class = type(connection)
        self._connection = connection
        self._transport = found
        further = theirs.get(VIA)
        self._further = Hop(str(further), variables, templar, timeout, (*seen, name)) if further else None

    def settings(self) -> tuple[Any, ...]:
        """What distinguishes this way from another."""
        beyond = self._further.settings() if self._further is not None else ()
        return (self.name, *self._transport.settings(self._connection), beyond)

    def start(self, plan: ConnectionPlan, start: Callable[[ConnectionPlan], None]) -> None:
        """Have `plan` started by the hop; `start` is called with what the controller has to start for that.

        :raises AnsibleError: as `Transport.establish`, or because the plan cannot leave the controller.
        """
        command = self._command(plan)

        def start_here(ours: ConnectionPlan) -> None:
            whole = replace(
                ours,
                key=plan_key(ours.argv, ours.key.encode(), plan.key.encode()),
                name=f"{plan.name} via {self.name}",
                timeout=ours.timeout + plan.timeout,
            )
            if self._further is not None:
                self._further.start(whole, start)
            else:
                start(whole)

        self._transport.establish(self._connection, command, start_here)

    def _command(self, plan: ConnectionPlan) -> str:
        # A local agent's is the controller's own, and on the hop that is the hop's.
        ours = plan.environment is transport.FIRST_ENVIRONMENT
        environment = {} if plan.environment is None or ours else plan.environment
        changed = {name for name, value in environment.items() if os.environ.get(name) != value}
        if PASSWORD_FD in plan.argv or changed:
            raise AnsibleError(
                f"{plan.name} is reached from {self.name} ({VIA}): the program there cannot be given a password or an "
                f"environment from here. Use a key that {self.name} has, or agent forwarding "
                f"(ansible_ssh_common_args: -A for {self.name})."
            )
        argv = [os.fsdecode(part) for part in plan.argv]
        if os.path.basename(argv[0]) == "ssh":
            # The sockets of ssh masters are the controller's; the first of equal options counts.
            argv[1:1] = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
        if shutil.which(os.path.basename(argv[0])) == argv[0]:
            # The plugin looked for its program here; on the hop it may be in another directory.
            argv[0] = os.path.basename(argv[0])
        # Not with exec in front: some plugins run it without a shell.
        return shlex.join(argv)
