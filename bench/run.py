# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Benchmark: the same playbooks under core linear, ansible_mitogen and ansible_mitogen.svc.

`make bench` runs this in the project's virtual environment; any environment that has ansible-core and the contenders
does. One process, one run at a time:

1. throw-away sshds (`tests/rig/loopback_sshd.py`) are started on 127.0.0.1 up to .50: every host has an address of its
   own, otherwise contenders that share a connection between hosts would look better than they are;
2. per scenario each contender has one warm-up run that is not counted, so that byte code, the interpreter's files and
   module caches on the target are there for everybody (core keeps nothing there: only before the first scenario);
3. then rounds: each contender once per round, the order rotating, so that slow drifts of the machine hit all alike;
4. after every run its ssh masters are ended: no run finds a connection of an earlier one;
5. markdown on standard output, markdown and JSON in bench/results/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import measure  # noqa: E402
import report  # noqa: E402
from contenders import CONTENDERS, SCP, Contender, ContenderMissing  # noqa: E402
from rig.delay_proxy import DelayProxy  # noqa: E402
from rig.errors import RigUnavailable  # noqa: E402
from rig.loopback_sshd import LoopbackSshd  # noqa: E402
from scenarios import SCENARIOS, Scenario  # noqa: E402

RUN_SECONDS = 1800.0


class Bench:
    """Owns the temporary directory and the servers; runs scenarios one at a time."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.rounds: int = options.rounds
        self.directory = directory
        self.interpreter: str = options.interpreter
        most = max(scenario.hosts for scenario in options.scenario)
        self.sshd = LoopbackSshd([f"127.0.0.{number + 1}" for number in range(most)], directory=directory / "sshd")
        self.results = report.Results(list(options.scenario), list(options.contenders))

    def run_scenario(self, scenario: Scenario) -> None:
        contenders = [one for one in self.results.contenders if one is not SCP or scenario.scp]
        with contextlib.ExitStack() as stack:
            self.addresses = [(address, self.sshd.port) for address in self.sshd.addresses[: scenario.hosts]]
            if scenario.one_way:
                proxies = [DelayProxy(address, scenario.one_way, address[0]) for address in self.addresses]
                self.addresses = [(proxy.address, stack.enter_context(proxy).port) for proxy in proxies]
            self.files, self.kept = (Path(tempfile.mkdtemp(prefix="f", dir=self.directory)) for _ in range(2))
            if scenario.prepare is not None:
                scenario.prepare(self.files)
            try:
                self.run_contenders(scenario, contenders)
            finally:
                shutil.rmtree(self.files)
                shutil.rmtree(self.kept)

    def run_contenders(self, scenario: Scenario, contenders: list[Contender]) -> None:
        for contender in contenders:
            if contender.leaves_caches or not (self.results.runs or contender.name in scenario.once):
                self.run_once(scenario, contender, warm_up=True)
        for number in range(self.rounds):
            turn = number % len(contenders)
            for contender in contenders[turn:] + contenders[:turn]:
                if number and contender.name in scenario.once:
                    continue
                measurement = self.run_once(scenario, contender)
                self.results.add(scenario, contender, measurement)
                say(f"{scenario.name} {contender.name} {measurement.wall:.2f} s{'' if measurement.good else ' FAILED'}")

    def run_once(self, scenario: Scenario, contender: Contender, warm_up: bool = False) -> measure.Measurement:
        """One run in a fresh directory; nothing of it stays."""
        directory = Path(tempfile.mkdtemp(prefix="r", dir=self.directory))
        masters = directory / "cp"
        masters.mkdir(mode=0o700)
        work = directory / "hosts"
        work.mkdir()
        (directory / "ansible.cfg").write_text(contender.configuration(scenario, masters))
        (directory / "hosts.json").write_text(self.inventory(scenario))
        (directory / "play.yml").write_text(scenario.playbook(str(work), str(self.files), str(self.kept)))
        environment = self.environment(directory)
        if warm_up and contender.name == "ours":
            environment["ANSIBLE_MITOGEN_SVC_STATS"] = str(directory / "statistics.json")
        command = [str(Path(sysconfig.get_path("scripts")) / "ansible-playbook"), "-i", "hosts.json", "play.yml"]
        if contender is SCP:
            command = self.scp(scenario, work)
        try:
            measurement = measure.run(command, environment, directory, RUN_SECONDS)
            if not measurement.good:
                say(measurement.output)
            self.keep_statistics(scenario, directory / "statistics.json")
        finally:
            end_masters(masters)
            shutil.rmtree(directory, ignore_errors=True)
        return measurement

    def scp(self, scenario: Scenario, work: Path) -> list[str]:
        """The command that copies what the scenario copies, with the same ssh options and so the same cipher."""
        address, port = self.addresses[0]
        here, there = str(self.files / "data"), f"{self.sshd.user}@{address}:{work}/h00"
        if scenario.scp == "fetch":
            here, there = f"{self.sshd.user}@{address}:{self.files}/data", str(work / "h00")
        options = [*self.sshd.common_args.split(), "-o", "StrictHostKeyChecking=no", "-i", str(self.sshd.private_key)]
        return ["scp", "-q", *options, "-P", str(port), here, there]

    def keep_statistics(self, scenario: Scenario, path: Path) -> None:
        if path.exists():
            self.results.statistics[scenario.name] = json.loads(path.read_text())

    def inventory(self, scenario: Scenario) -> str:
        hosts = {
            f"h{number:02}": {"ansible_host": address, "ansible_port": port}
            for number, (address, port) in enumerate(self.addresses)
        }
        variables = {**self.sshd.inventory_variables(), "ansible_python_interpreter": self.interpreter}
        if scenario.one_way:
            # A proxy's port is none that known_hosts names.
            variables["ansible_ssh_common_args"] = f"{self.sshd.common_args} -o StrictHostKeyChecking=no"
        return json.dumps({"all": {"hosts": hosts, "vars": variables}})

    def environment(self, directory: Path) -> dict[str, str]:
        """The caller's environment without its Ansible settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MITOGEN_"))}
        return {**kept, "ANSIBLE_CONFIG": str(directory / "ansible.cfg"), "NO_COLOR": "1"}


def end_masters(directory: Path) -> None:
    """Ask every ssh master whose socket lies in directory to exit."""
    for path in directory.iterdir():
        command = ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "host"]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the same playbooks under several strategies.")
    named = {scenario.name: scenario for scenario in SCENARIOS}
    known = {contender.name: contender for contender in CONTENDERS}
    parser.add_argument("--scenario", nargs="+", choices=sorted(named), default=list(named), help="default: all")
    parser.add_argument("--contenders", nargs="+", choices=sorted(known), default=list(known), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="counted runs of each (default: %(default)s)")
    parser.add_argument(
        "--interpreter", default=shutil.which("python3", path="/usr/bin") or sys.executable,
        help="ansible_python_interpreter of the hosts (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the table and the JSON")
    options = parser.parse_args()
    options.scenario = [named[name] for name in options.scenario]
    options.contenders = installed([known[name] for name in options.contenders])
    return options


def installed(contenders: list[Contender]) -> list[Contender]:
    """Those that can run here; says why the others cannot."""
    usable = []
    for contender in contenders:
        try:
            contender.strategy_path()
        except ContenderMissing as error:
            say(f"without {contender.title}: {error}")
        else:
            usable.append(contender)
    return usable


def write_results(results: report.Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.md").write_text(report.markdown(results))
    (folder / "bench.json").write_text(report.as_json(results))


def main() -> int:
    options = parse_arguments()
    # Short path: the sockets of ssh masters below it may have 104 characters at most.
    with tempfile.TemporaryDirectory(prefix="svcb-", dir="/tmp") as name:
        bench = Bench(options, Path(name))
        try:
            bench.sshd.start()
            for scenario in options.scenario:
                bench.run_scenario(scenario)
                write_results(bench.results, options.results)
        except RigUnavailable as error:
            say(f"the benchmark needs sshd on loopback: {error}")
            return 2
        except KeyboardInterrupt:
            say("interrupted: what follows is incomplete")
        finally:
            bench.sshd.stop()
    print(report.markdown(bench.results))
    return 0 if bench.results.all_good() else 1


if __name__ == "__main__":
    sys.exit(main())
