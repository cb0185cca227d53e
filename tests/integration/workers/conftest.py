# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs playbooks of this directory under core's strategies and under ours: fixtures with a `Lab`.

The fixtures `lab` and `every_core` use local connections, `ssh_lab` and `every_core_over_ssh` ssh, with a loopback
address for each host. The ansible-playbook is that of the interpreter that runs pytest, or those of the environments
that ANSIBLE_MITOGEN_SVC_TEST_VENVS names (separated by colons), for tests that use the `every_core` fixtures.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from rig.errors import RigUnavailable
from rig.loopback_sshd import LoopbackSshd
from rig.playbook import WORKERS

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import stacks  # noqa: E402
import streams  # noqa: E402

CHECKOUT = HERE.parent.parent.parent
OURS = "ansible_mitogen.svc."
#: Addresses that hosts of the inventory have over ssh.
ADDRESSES = [f"127.0.0.{number}" for number in range(1, 17)]
#: What files of the vault hold once they are decrypted.
OF_THE_VAULT = b"decrypted content of the vault"


#: Whether every task has a worker process, whatever it is; then nothing is said about kinds of workers.
forced = WORKERS != "auto"
#: Marks tests of what only holds when the kind of worker is chosen for each task.
where_workers_are_chosen = pytest.mark.skipif(forced, reason="SVC_TEST_WORKERS: no kind of worker is chosen")


class RunHangs(AssertionError):
    """A run did not end in its time; the text has the stacks of all its threads."""


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
    """Runs playbooks of `venv`'s ansible-core in `directory`. `sshd`: what serves the hosts, or None for local ones."""

    def __init__(self, directory: pathlib.Path, venv: pathlib.Path, sshd: LoopbackSshd | None = None) -> None:
        self.directory = directory
        self.venv = venv
        self.sshd = sshd
        collection = directory / "collections" / "ansible_collections" / "ansible_mitogen"
        collection.mkdir(parents=True)
        (collection / "svc").symlink_to(CHECKOUT)
        (directory / "ansible.cfg").write_text("[defaults]\n")
        self._number = 0

    def inventory(self, hosts: int, **variables: Any) -> pathlib.Path:
        """An inventory file with hosts h01..."""
        shared: dict[str, Any] = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        named: dict[str, dict[str, Any]] = {f"h{number:02}": {"n": number} for number in range(1, hosts + 1)}
        if self.sshd is None:
            shared["ansible_connection"] = "local"
        else:
            shared.update(self.sshd.inventory_variables())
            for values, address in zip(named.values(), ADDRESSES, strict=False):
                values["ansible_host"] = address
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
            "ANSIBLE_ASYNC_DIR": str(self.directory / "async"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
            "ANSIBLE_STRATEGY": strategy,
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "event_stream",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "ANSIBLE_MITOGEN_SVC_STATS": str(self.directory / f"statistics-{self._number}.json"),
            "EVENT_STREAM": str(self.directory / f"events-{self._number}.json"),
            "TEST_STACKS": str(self.directory / f"stacks-{self._number}"),
            **self._ssh_environment(strategy),
            **({"ANSIBLE_MITOGEN_SVC_TASK_WORKERS": WORKERS} if forced else {}),
            "PYTHONPATH": f"{CHECKOUT}:{HERE / 'site'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def _ssh_environment(self, strategy: str) -> dict[str, str]:
        if self.sshd is None:
            return {}
        # Sockets of ssh need a short path, and a run must not find the connections of another one.
        sockets = tempfile.mkdtemp(prefix="cp", dir=self.sshd.directory)
        # Pipelining only makes core quicker.
        quick = {} if strategy.startswith(OURS) else {"ANSIBLE_PIPELINING": "true"}
        return {"ANSIBLE_SSH_CONTROL_PATH_DIR": sockets, **quick}

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
        """Run a playbook to its end. :raises RunHangs: it takes more than `timeout` seconds."""
        variables = {"scratch": str(self.directory / f"run-{self._number}-of"), **(variables or {})}
        os.makedirs(variables["scratch"], exist_ok=True)
        env = self.environment(strategy, **environment)
        process = subprocess.Popen(
            self.command(play, hosts, forks, *arguments, **variables),
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            on_targets = self.sshd.sessions() if self.sshd is not None else ()
            found = stacks.of_run(process.pid, pathlib.Path(env["TEST_STACKS"]), on_targets)
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise RunHangs(f"no end after {timeout} s\n{output[-3000:]}\n{found}") from None
        finally:
            if process.poll() is None:  # Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return self.finished(process.returncode, output, env)

    @staticmethod
    def wants_of_mixed(strategy: str) -> dict[str, str]:
        """What mixed.yml needs of its environment."""
        return {
            "ANSIBLE_VAULT_PASSWORD_FILE": str(HERE / "plays" / "vault_password.txt"),
            "ANSIBLE_MITOGEN_SVC_SAFE_PLUGINS": "ansible.legacy",
            **({} if strategy.startswith(OURS) and not forced else {"TEST_EXIT_IS_AN_ERROR": "yes"}),
        }

    def mixed(
        self,
        strategy: str,
        hosts: int = 16,
        timeout: float = 600,
        arguments: Sequence[str] = (),
        **environment: str,
    ) -> Run:
        """Run mixed.yml, and look at what it leaves behind."""
        temporary = self.directory / f"temporary-{self._number}"
        remote = self.directory / f"remote-{self._number}"
        remote.mkdir(mode=0o700)
        run = self.run(
            "mixed.yml",
            strategy,
            *arguments,
            hosts=hosts,
            forks=hosts,
            timeout=timeout,
            variables={"ansible_remote_tmp": str(remote)},
            ANSIBLE_LOCAL_TEMP=str(temporary),
            **{**self.wants_of_mixed(strategy), **environment},
        )
        assert run.events and run.returncode in (0, 2), f"it ended with {run.returncode}: {run.output[-3000:]}"
        for path in (*temporary.rglob("*"), *remote.rglob("*")):
            assert not (path.is_file() and OF_THE_VAULT in path.read_bytes()), f"{path} is decrypted, and still there"
        return run

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


def venvs() -> list[pathlib.Path]:
    """Environments with an ansible-core to test with: this one, unless others are named."""
    named = os.environ.get("ANSIBLE_MITOGEN_SVC_TEST_VENVS", "")
    return [pathlib.Path(each) for each in named.split(":") if each] or [pathlib.Path(sys.prefix)]


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> Lab:
    """Runs playbooks with this interpreter's ansible-core."""
    return Lab(tmp_path, pathlib.Path(sys.prefix))


@pytest.fixture(scope="session")
def loopback_sshd() -> Iterator[LoopbackSshd]:
    """ssh servers on all of `ADDRESSES`."""
    try:
        server = LoopbackSshd(ADDRESSES).__enter__()
    except RigUnavailable as reason:
        pytest.skip(f"no sshd on this machine: {reason}")
    yield server
    server.close()


@pytest.fixture
def ssh_lab(tmp_path: pathlib.Path, loopback_sshd: LoopbackSshd) -> Lab:
    """Runs playbooks with this interpreter's ansible-core, over ssh."""
    return Lab(tmp_path, pathlib.Path(sys.prefix), loopback_sshd)


@pytest.fixture(params=venvs(), ids=lambda venv: venv.name)
def every_core_over_ssh(request: pytest.FixtureRequest, tmp_path: pathlib.Path, loopback_sshd: LoopbackSshd) -> Lab:
    """Runs playbooks with each ansible-core there is, over ssh."""
    return Lab(tmp_path, request.param, loopback_sshd)


@pytest.fixture(params=venvs(), ids=lambda venv: venv.name)
def every_core(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Lab:
    """Runs playbooks with each ansible-core there is."""
    return Lab(tmp_path, request.param)
