# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs playbooks of this directory under core's strategies and under ours, over local connections of this machine.

The ansible-playbook is that of the interpreter that runs pytest, or those of the virtual environments named in
ANSIBLE_MITOGEN_SVC_TEST_VENVS (separated by colons), for tests that use the fixture `every_core`.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import streams  # noqa: E402

CHECKOUT = HERE.parent.parent.parent
OURS = "ansible_mitogen.svc."


@dataclass
class Run:
    """What one ansible-playbook did."""

    returncode: int
    output: str
    events: list[streams.Event] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> dict[str, dict[str, int]]:
        """Numbers of tasks by kind of worker and reason."""
        return self.statistics["tasks"]

    def results(self, task: str, event: str | None = None) -> dict[str, dict[str, Any]]:
        """The results of the task with that name by host name."""
        return {
            each["host"]: each["result"]
            for each in self.events
            if each.get("task") == task and "result" in each and event in (None, each["event"])
        }


class Lab:
    """Runs playbooks. `hosts`: how many the inventory has (h01...)."""

    def __init__(self, directory: pathlib.Path, venv: pathlib.Path) -> None:
        self.directory = directory
        self.venv = venv
        collection = directory / "collections" / "ansible_collections" / "ansible_mitogen"
        collection.mkdir(parents=True)
        (collection / "svc").symlink_to(CHECKOUT)
        (directory / "ansible.cfg").write_text("[defaults]\n")
        self._number = 0

    def inventory(self, hosts: int, **variables: Any) -> pathlib.Path:
        """An inventory file with hosts h01..."""
        shared = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        named = {f"h{number:02}": {"n": number} for number in range(1, hosts + 1)}
        odd = {name: {} for name, values in named.items() if values["n"] % 2}
        tree = {"many": {"hosts": named, "children": {"odd": {"hosts": odd}}, "vars": {**shared, **variables}}}
        path = self.directory / f"inventory-{hosts}.yml"
        path.write_text(json.dumps({"all": {"children": tree}}))
        return path

    def environment(self, strategy: str, **more: str) -> dict[str, str]:
        """The environment of a run."""
        self._number += 1
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
            "ANSIBLE_STRATEGY": strategy,
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "event_stream",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "ANSIBLE_MITOGEN_SVC_STATS": str(self.directory / f"statistics-{self._number}.json"),
            "EVENT_STREAM": str(self.directory / f"events-{self._number}.json"),
            "PYTHONPATH": f"{CHECKOUT}:{HERE / 'site'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def command(self, play: pathlib.Path | str, hosts: int, forks: int, *arguments: str, **variables: Any) -> list[str]:
        """The command line of a run. `play`: name of a file in plays/, or a path."""
        return [
            str(self.venv / "bin" / "ansible-playbook"),
            "--inventory",
            str(self.inventory(hosts, **variables)),
            "--forks",
            str(forks),
            str(HERE / "plays" / play),
            *arguments,
        ]

    def run(
        self,
        play: pathlib.Path | str,
        strategy: str,
        *arguments: str,
        hosts: int = 16,
        forks: int = 16,
        timeout: float = 240,
        stdin: str = "",
        variables: dict[str, Any] | None = None,
        **environment: str,
    ) -> Run:
        """Run a playbook to its end."""
        variables = {"scratch": str(self.directory / f"run-{self._number}-of"), **(variables or {})}
        os.makedirs(variables["scratch"], exist_ok=True)
        env = self.environment(strategy, **environment)
        done = subprocess.run(
            self.command(play, hosts, forks, *arguments, **variables),
            env=env,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            cwd=self.directory,
        )
        return self.finished(done.returncode, done.stdout, env)

    @staticmethod
    def finished(returncode: int, output: str, env: dict[str, str]) -> Run:
        """What a run left behind."""
        run = Run(returncode, output)
        if os.path.exists(env["EVENT_STREAM"]):
            run.events = streams.read(env["EVENT_STREAM"])
        if os.path.exists(env["ANSIBLE_MITOGEN_SVC_STATS"]):
            run.statistics = json.loads(pathlib.Path(env["ANSIBLE_MITOGEN_SVC_STATS"]).read_text())
        return run

    def write(self, text: str, name: str = "playbook.yml") -> pathlib.Path:
        """A playbook from its text."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def both(
        self, play: pathlib.Path | str, strategy: str = "linear", *arguments: str, **keywords: Any
    ) -> tuple[Run, Run]:
        """The same playbook under core's strategy and under ours."""
        core = self.run(play, strategy, *arguments, **keywords)
        assert core.events, core.output
        return core, self.run(play, OURS + strategy, *arguments, **keywords)


def _venvs() -> list[pathlib.Path]:
    named = os.environ.get("ANSIBLE_MITOGEN_SVC_TEST_VENVS", "")
    return [pathlib.Path(each) for each in named.split(":") if each] or [pathlib.Path(sys.prefix)]


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> Lab:
    """Runs playbooks with this interpreter's ansible-core."""
    return Lab(tmp_path, pathlib.Path(sys.prefix))


@pytest.fixture(params=_venvs(), ids=lambda venv: venv.name)
def every_core(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Lab:
    """Runs playbooks with each ansible-core there is."""
    return Lab(tmp_path, request.param)
