# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The benchmark's scenarios as data.

Read by `bench/run.py` in the process that drives the benchmark. A scenario is one play: its tasks, on how many hosts,
each a loopback address of its own. Playbooks are written as JSON, which is YAML.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Task = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One playbook, how many hosts run it and how often."""

    name: str
    title: str
    tasks: Callable[[], list[Task]]
    hosts: int = 1
    forks: int = 16
    # False: ControlMaster and ControlPersist off for every contender, so that each run connects anew.
    keep_ssh_master: bool = True
    gather_facts: bool = False

    def playbook(self, work_directory: str) -> str:
        """The playbook's text; tasks write below work_directory only."""
        play = {
            "name": self.title,
            "hosts": "all",
            "gather_facts": self.gather_facts,
            "vars": {"work": work_directory + "/{{ inventory_hostname }}"},
            "tasks": self.tasks(),
        }
        return json.dumps([play], indent=1)


def pings(number: int) -> Callable[[], list[Task]]:
    return lambda: [{"name": f"ping {index}", "ansible.builtin.ping": None} for index in range(number)]


def debugs(number: int) -> Callable[[], list[Task]]:
    return lambda: [{"name": f"debug {index}", "ansible.builtin.debug": {"msg": f"{index}"}} for index in range(number)]


def command_loop() -> list[Task]:
    return [{"name": "loop", "ansible.builtin.command": "echo {{ item }}", "loop": list(range(100))}]


def facts() -> list[Task]:
    return [{"name": f"facts {index}", "ansible.builtin.setup": None} for index in range(3)]


def mixed() -> list[Task]:
    """Fifty tasks: a directory, then seven rounds of seven everyday modules."""
    tasks: list[Task] = [
        {"name": "directory", "ansible.builtin.file": {"path": "{{ work }}", "state": "directory", "mode": "0755"}}
    ]
    for index in range(7):
        path = "{{ work }}/" + str(index)
        tasks += [
            {"name": f"copy {index}", "ansible.builtin.copy": {"content": f"text {index}\n", "dest": path}},
            {"name": f"stat {index}", "ansible.builtin.stat": {"path": path}, "register": "seen"},
            {"name": f"command {index}", "ansible.builtin.command": f"cat {path}", "changed_when": False},
            {"name": f"lineinfile {index}", "ansible.builtin.lineinfile": {"path": path, "line": f"line {index}"}},
            {"name": f"shell {index}", "ansible.builtin.shell": f"wc -l < {path}", "changed_when": False},
            {"name": f"slurp {index}", "ansible.builtin.slurp": {"src": path}},
            {"name": f"file {index}", "ansible.builtin.file": {"path": path, "mode": "0600"}},
        ]
    return tasks


SCENARIOS = (
    Scenario("ping200", "200 ping", pings(200)),
    Scenario("mixed", "50 mixed tasks", mixed),
    Scenario("mixed16", "50 mixed tasks x 16 hosts", mixed, hosts=16),
    Scenario("loop100", "100-item loop of command", command_loop),
    Scenario("facts", "setup, 3 times", facts),
    Scenario("connect50", "connect to 50 hosts + ping", pings(1), hosts=50, forks=50, keep_ssh_master=False),
    Scenario("first", "first task of a run: one ping", pings(1), keep_ssh_master=False),
    Scenario("debug16", "100 debug x 16 hosts", debugs(100), hosts=16),
)
