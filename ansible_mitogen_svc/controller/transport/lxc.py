# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""LXC containers of liblxc. community.general's plugin starts no program but attaches through liblxc's Python binding;
so what is started here is a Python that attaches in the same way: to the same container, with the same arguments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport, Observation

#: Arguments: the container, the directory of its configuration, further arguments of `attach_wait` as JSON, command.
_ATTACH = (
    "import json, lxc, sys; name, place, more = sys.argv[1:4]; "
    "sys.exit(lxc.Container(name, place).attach_wait(lxc.attach_run_command, sys.argv[4:], **json.loads(more)) >> 8)"
)


class _ObservedContainer:
    """The container object that the plugin attaches with."""

    def __init__(self, container: Any, observation: Observation) -> None:
        self._container = container
        self._observation = observation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def attach(self, function: Any, command: list[str], **keywords: Any) -> int:
        """What the plugin calls for each command; gives the pid of a process that is about to end."""
        more = {name: value for name, value in keywords.items() if name not in ("stdin", "stdout", "stderr")}
        place = self._container.get_config_path()
        argv = [sys.executable, "-c", _ATTACH, self._container.name, place, json.dumps(more), *command]
        self._observation.process(argv, {})
        return subprocess.Popen(["true"]).pid


class LxcTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"lxc", "community.general.lxc"})

    @staticmethod
    def _run(plugin: Any, command: str, observation: Observation, sudoable: bool) -> Exception | None:
        try:
            plugin._connect()
            container = getattr(plugin.container, "_container", plugin.container)
            plugin.container = _ObservedContainer(container, observation)
            plugin.exec_command(command, in_data=os.linesep.encode(), sudoable=sudoable)
        except Exception as error:
            return error
        return None


TRANSPORT = LxcTransport()
