# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Demo: one unchanged playbook under core's linear strategy and under ansible_mitogen.svc.linear.

`make demo` runs this in a virtual environment that has the project installed as a user would install it. One process:
it starts a throw-away sshd on loopback (without one it says why and uses connection local), runs `playbook.yml` under
both strategies in turn, and prints times, recaps and every difference between the results. Exit status 0 means that
all runs succeeded with identical results. Everything is written below one temporary directory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from rig.errors import RigUnavailable  # noqa: E402
from rig.loopback_sshd import LoopbackSshd  # noqa: E402
from rig.results import Tolerance, compare  # noqa: E402

CALLBACKS = HERE.parent / "tests/integration/callback_plugins"
STRATEGIES = ("ansible.builtin.linear", "ansible_mitogen.svc.linear")
CONFIGURATION = """
[defaults]
inventory = hosts.json
strategy = {strategy}
callback_plugins = {callbacks}
callbacks_enabled = rig_results
retry_files_enabled = False
remote_tmp = {directory}/remote
[connection]
pipelining = True
[ssh_connection]
ssh_args = -o ControlMaster=auto -o ControlPersist=60s
control_path_dir = {directory}/cp
"""
# What two runs under core itself do not agree on, beside what rig.results lists.
TOLERANCES = (
    Tolerance("stat.version", "generation number of a new file"),
    Tolerance("ansible_facts.ansible_mounts.*", "listed in the order in which threads end"),
    Tolerance("ansible_facts.ansible_virtualization_tech_*", "a set's order"),
    # core's copy writes `content` to a local file of a random name, and 2.19 reports that name
    Tolerance("invocation.module_args._original_basename", "random name", "A file made of text"),
    Tolerance("invocation.module_args._original_basename", "random name", "Note the failure"),
)


@dataclass(frozen=True)
class Run:
    """One finished ansible-playbook: wall time in seconds, its recap lines, its results, and all it printed.

    `module_runs` is that part of the statistics our strategy writes; empty under core's.
    """

    strategy: str
    seconds: float
    returncode: int
    recap: str
    results: list[dict[str, Any]]
    output: str
    module_runs: dict[str, Any]


def host_variables(sshd: LoopbackSshd | None) -> dict[str, object]:
    """Connection variables: the throw-away sshd, or connection local."""
    interpreter = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    if sshd is None:
        return {"ansible_connection": "local", "ansible_python_interpreter": interpreter}
    return {
        "ansible_host": sshd.addresses[0],
        "ansible_python_interpreter": interpreter,
        **sshd.inventory_variables(),
    }


def run_playbook(strategy: str, directory: Path) -> Run:
    """Run the playbook once; directory holds hosts.json and, under it, all that the run writes."""
    root = directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    configuration = CONFIGURATION.format(strategy=strategy, callbacks=CALLBACKS, directory=directory)
    (directory / "ansible.cfg").write_text(configuration)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MITOGEN_"))}
    environment = {
        **kept,
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "NO_COLOR": "1",
        "RIG_RESULTS": str(directory / "results"),
        "ANSIBLE_MITOGEN_SVC_STATS": str(directory / "statistics"),
    }
    program = str(Path(sysconfig.get_path("scripts")) / "ansible-playbook")
    command = [program, "--extra-vars", json.dumps({"demo_root": str(root)}), "playbook.yml"]
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=HERE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    seconds = time.monotonic() - started
    end_masters(directory / "cp")
    recap = done.stdout.partition("PLAY RECAP")[2].partition("\n")[2].strip()
    results = [json.loads(line) for line in (directory / "results").read_text().splitlines()]
    module_runs = {}
    if (directory / "statistics").exists():
        module_runs = json.loads((directory / "statistics").read_text())["module_runs"]
        (directory / "statistics").unlink()
    return Run(strategy, seconds, done.returncode, recap, results, done.stdout, module_runs)


def end_masters(directory: Path) -> None:
    """Ask every ssh master whose socket lies in directory to exit, so that each run connects for itself."""
    for path in directory.glob("*"):
        command = ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "host"]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)


def report(runs: list[Run]) -> bool:
    """Print times, recaps and differences; returns whether every run succeeded with the same results."""
    medians = []
    for strategy in STRATEGIES:
        mine = [run for run in runs if run.strategy == strategy]
        medians.append(statistics.median(run.seconds for run in mine))
        print(f"\n{strategy}: {'  '.join(f'{run.seconds:.2f} s' for run in mine)}")
        for recap in dict.fromkeys(run.recap for run in mine):
            print(f"  {recap}")
        if mine[-1].module_runs:
            print(f"  module runs by path and reason: {json.dumps(mine[-1].module_runs)}")
    failed = [run for run in runs if run.returncode != 0]
    if failed:
        print(f"\nA run under {failed[0].strategy} ended with {failed[0].returncode}:\n{failed[0].output}")
        return False
    differences = {str(found): None for run in runs[1:] for found in compare(runs[0].results, run.results, TOLERANCES)}
    print(f"\nResults: {'identical' if not differences else 'NOT identical'} ", end="")
    print(f"({len(runs[0].results)} events of each run compared field by field)")
    for text in differences:
        print(f"  {text}")
    print(
        f"{STRATEGIES[1]} took {medians[1] / medians[0]:.2f} of the time: {medians[0] / medians[1]:.1f} times as fast."
    )
    return not differences


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one playbook under two strategies and compare.")
    parser.add_argument("--rounds", type=int, default=2, help="runs under each strategy (default: %(default)s)")
    parser.add_argument("--connection", choices=("ssh", "local"), default="ssh", help="default: %(default)s")
    options = parser.parse_args()
    # Short path: the sockets of ssh masters below it may have 104 characters at most.
    with tempfile.TemporaryDirectory(prefix="svcd-", dir="/tmp") as name:
        directory = Path(name)
        (directory / "cp").mkdir(mode=0o700)
        sshd: LoopbackSshd | None = None
        if options.connection == "ssh":
            sshd = LoopbackSshd(directory=directory / "sshd")
        try:
            if sshd is not None:
                try:
                    sshd.start()
                except RigUnavailable as error:
                    print(f"No ssh here ({error}); using connection local.")
                    sshd = None
            inventory = {"all": {"hosts": {"demo": host_variables(sshd)}}}
            (directory / "hosts.json").write_text(json.dumps(inventory))
            runs = []
            for number in range(options.rounds):
                for strategy in STRATEGIES:
                    print(f"round {number + 1}: {strategy} ...", flush=True)
                    runs.append(run_playbook(strategy, directory))
            return 0 if report(runs) else 1
        finally:
            if sshd is not None:
                sshd.close()


if __name__ == "__main__":
    sys.exit(main())
