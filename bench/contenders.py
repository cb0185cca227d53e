# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Who is compared: the ansible.cfg each contender gets.

Read by `bench/run.py`. All of them get pipelining and, where the scenario keeps ssh masters, ControlPersist: core at
its best. `ansible_mitogen` is found on disk and named in `strategy_plugins`; nothing of it is imported here.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from scenarios import Scenario


class ContenderMissing(Exception):
    """A contender is not installed in this environment; the text says which package has it."""


@dataclass(frozen=True)
class Contender:
    """One way of running a playbook."""

    name: str
    title: str
    strategy: str
    # The package that must be installed, and the folder in it that holds its strategy plugins ("" for none).
    package: str = ""
    plugin_folder: str = ""
    # Whether a run leaves something on hosts or controller that makes the next one of the same playbook faster.
    leaves_caches: bool = True

    def strategy_path(self) -> str:
        """The folder for `strategy_plugins`, or "".

        :raises ContenderMissing: the package is not installed.
        """
        if not self.package:
            return ""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ContenderMissing(f"the package {self.package} is not installed")
        location = next(iter(spec.submodule_search_locations))
        return str(Path(location) / self.plugin_folder) if self.plugin_folder else ""

    def configuration(self, scenario: Scenario, control_path_directory: Path) -> str:
        """The text of ansible.cfg for one run."""
        persist = "-o ControlMaster=auto -o ControlPersist=60s" if scenario.keep_ssh_master else "-o ControlMaster=no"
        lines = [
            "[defaults]",
            f"strategy = {self.strategy}",
            f"forks = {scenario.forks}",
            "timeout = 60",  # fifty connections at once on a small machine take longer than the default of 10 seconds
            "host_key_checking = True",
            "retry_files_enabled = False",
        ]
        if self.strategy_path():
            lines.append(f"strategy_plugins = {self.strategy_path()}")
        lines += [
            "[ssh_connection]",
            "pipelining = True",
            f"ssh_args = {persist}",
            f"control_path_dir = {control_path_directory}",
        ]
        return "\n".join(lines) + "\n"


# Takes part where a scenario says so; it copies the one file that the others' playbooks copy.
SCP = Contender("scp", "scp", "", leaves_caches=False)
CONTENDERS = (
    Contender("core", "core linear, pipelining", "linear", leaves_caches=False),
    Contender("peer", "ansible_mitogen", "mitogen_linear", "ansible_mitogen", "plugins/strategy"),
    Contender("ours", "ansible_mitogen.svc", "ansible_mitogen.svc.linear", "ansible_mitogen_svc"),
    SCP,
)
