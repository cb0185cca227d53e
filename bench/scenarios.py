# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The benchmark's scenarios as data.

Read by `bench/run.py` in the process that drives the benchmark. A scenario is one play: its tasks, on how many hosts,
each a loopback address of its own. Playbooks are written as JSON, which is YAML. Tasks find files to copy below
`files`, write below `work`, which each run has for itself, or below `kept`, which all runs of a scenario share.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
    # Makes what is below `files`, once.
    prepare: Callable[[Path], None] | None = None
    # Seconds that everything takes from one end to the other, through a proxy before each host.
    one_way: float = 0.0
    # What scp copies for comparison: "put" or "fetch" of the file `files`/data; empty: scp does not take part.
    scp: str = ""
    # The warm-up run, made by every contender, leaves below `kept` what the counted runs find there.
    unchanged: bool = False
    # Contenders that run once only, because one run takes minutes.
    once: frozenset[str] = frozenset()

    def playbook(self, work_directory: str, files: str = "", kept: str = "") -> str:
        """The playbook's text; tasks write below work_directory and kept only."""
        play = {
            "name": self.title,
            "hosts": "all",
            "gather_facts": self.gather_facts,
            "vars": {"work": work_directory + "/{{ inventory_hostname }}", "files": files, "kept": kept},
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


def mixed(number: int) -> Callable[[], list[Task]]:
    """The first of fifty tasks: a directory, then seven rounds of seven everyday modules."""
    return lambda: _fifty_mixed()[:number]


def _fifty_mixed() -> list[Task]:
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


def random_file(size: int) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        with open(directory / "data", "wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))

    return make


def text_file(size: int) -> Callable[[Path], None]:
    """Lines as a log has them: they shrink to about a quarter."""

    def make(directory: Path) -> None:
        dice = random.Random(1)
        lines = [
            f"2026-11-23T08:{dice.randrange(60):02}:{dice.randrange(60):02} host{dice.randrange(100)} service"
            f"[{dice.randrange(30000)}]: request {dice.getrandbits(48):012x} took {dice.randrange(9000)} ms\n"
            for _ in range(100_000)
        ]
        block = "".join(lines).encode()
        with open(directory / "data", "wb") as file:
            while file.tell() < size:
                file.write(block[: size - file.tell()])

    return make


def small_files(directory: Path) -> None:
    for number in range(1000):
        place = directory / "tree" / f"d{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(os.urandom(512) * (number % 16 + 1))


def page(directory: Path) -> None:
    (directory / "page.j2").write_text("{{ inventory_hostname }} {{ number }} " + "text " * 200 + "\n")


def copy_file() -> list[Task]:
    return [{"name": "copy", "ansible.builtin.copy": {"src": "{{ files }}/data", "dest": "{{ work }}"}}]


def fetch_file() -> list[Task]:
    arguments = {"src": "{{ files }}/data", "dest": "{{ work }}", "flat": True}
    return [{"name": "fetch", "ansible.builtin.fetch": arguments}]


def copy_tree(place: str) -> Callable[[], list[Task]]:
    arguments = {"src": "{{ files }}/tree/", "dest": "{{ %s }}/tree" % place, "mode": "0644"}  # noqa: UP031
    return lambda: [{"name": "tree", "ansible.builtin.copy": arguments}]


def many_files(directory: Path) -> None:
    (directory / "many").mkdir()
    for number in range(300):
        (directory / "many" / f"f{number}").write_bytes(os.urandom(600))


def copy_loop() -> list[Task]:
    arguments = {"src": "{{ item }}", "dest": "{{ kept }}/many/", "mode": "0644"}
    directory = {"path": "{{ kept }}/many", "state": "directory", "mode": "0755"}
    return [
        {"name": "directory", "ansible.builtin.file": directory},
        {"name": "loop", "ansible.builtin.copy": arguments, "with_fileglob": "{{ files }}/many/*"},
    ]


def templates(number: int) -> Callable[[], list[Task]]:
    def tasks() -> list[Task]:
        arguments = {"src": "{{ files }}/page.j2", "mode": "0644"}
        return [
            {
                "name": f"template {index}",
                "ansible.builtin.template": {**arguments, "dest": "{{ kept }}/page" + str(index)},
                "vars": {"number": index},
            }
            for index in range(number)
        ]

    return tasks


MIB = 1 << 20
SCENARIOS = (
    Scenario("ping200", "200 ping", pings(200)),
    Scenario("mixed", "50 mixed tasks", mixed(50)),
    Scenario("mixed16", "25 mixed tasks x 16 hosts", mixed(25), hosts=16),
    Scenario("loop100", "100-item loop of command", command_loop),
    Scenario("facts", "setup, 3 times", facts),
    Scenario("connect50", "connect to 50 hosts + ping", pings(1), hosts=50, forks=50, keep_ssh_master=False),
    Scenario("first", "first task of a run: one ping", pings(1), keep_ssh_master=False),
    Scenario("debug16", "100 debug x 16 hosts", debugs(100), hosts=16),
    Scenario("large", "copy of 1 GiB", copy_file, prepare=random_file(1024 * MIB), scp="put", once=frozenset({"core"})),
    Scenario(
        "text-wan", "copy of 256 MiB of text, 40 ms round trip", copy_file, prepare=text_file(256 * MIB), scp="put",
        one_way=0.02, once=frozenset({"core"}),
    ),
    Scenario(
        "tree-new", "copy of 1,000 small files, new", copy_tree("work"), prepare=small_files, once=frozenset({"core"})
    ),
    Scenario(
        "tree", "copy of 1,000 small files, unchanged", copy_tree("kept"), prepare=small_files, unchanged=True,
        once=frozenset({"core"}),
    ),
    Scenario(
        "template300", "300 template, unchanged, 20 ms round trip", templates(300), prepare=page, one_way=0.01,
        unchanged=True, once=frozenset({"core"}),
    ),
    Scenario(
        "loop-files", "copy in a loop over 300 files, unchanged, 20 ms round trip", copy_loop, prepare=many_files,
        one_way=0.01, unchanged=True, once=frozenset({"core"}),
    ),
    Scenario("fetch", "fetch of 256 MiB", fetch_file, prepare=random_file(256 * MIB), scp="fetch"),
)  # fmt: skip
