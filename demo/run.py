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
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from rig.errors import RigUnavailable  # noqa: E402
from rig.loopback_sshd import LoopbackSshd  # noqa: E402

from ansible_mitogen_svc.command.comparing import report  # noqa: E402
from ansible_mitogen_svc.comparison.recording import (  # noqa: E402
    CORE_STRATEGY,
    OUR_STRATEGY,
    RecordedRun,
    run_recorded,
)
from ansible_mitogen_svc.comparison.results import Tolerance  # noqa: E402

STRATEGIES = (CORE_STRATEGY, OUR_STRATEGY)
CONFIGURATION = """
[defaults]
inventory = hosts.json
retry_files_enabled = False
remote_tmp = {directory}/remote
[connection]
pipelining = True
[ssh_connection]
ssh_args = -o ControlMaster=auto -o ControlPersist=60s
control_path_dir = {directory}/cp
"""
# Beside what the comparison lists itself.
TOLERANCES = (
    # core's copy writes `content` to a local file of a random name, and 2.19 reports that name
    Tolerance("invocation.module_args._original_basename", "random name", "A file made of text"),
    Tolerance("invocation.module_args._original_basename", "random name", "Note the failure"),
)


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


def run_playbook(strategy: str, directory: Path) -> RecordedRun:
    """Run the playbook once; directory holds hosts.json and, under it, all that the run writes."""
    root = directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    (directory / "ansible.cfg").write_text(CONFIGURATION.format(directory=directory))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MITOGEN_"))}
    environment = {**kept, "ANSIBLE_CONFIG": str(directory / "ansible.cfg"), "NO_COLOR": "1"}
    arguments = ["--extra-vars", json.dumps({"demo_root": str(root)}), "playbook.yml"]
    finished = run_recorded(arguments, strategy, environment, HERE, timeout=900)
    end_masters(directory / "cp")
    return finished


def end_masters(directory: Path) -> None:
    """Ask every ssh master whose socket lies in directory to exit, so that each run connects for itself."""
    for path in directory.glob("*"):
        command = ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "host"]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)


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
            failed = [run for run in runs if run.returncode != 0]
            if failed:
                print(f"A run under {failed[0].strategy} ended with {failed[0].returncode}:\n{failed[0].output}")
                return 1
            core, ours = ([run for run in runs if run.strategy == strategy] for strategy in STRATEGIES)
            return report(core, ours, shown=None, tolerances=TOLERANCES)
        finally:
            if sshd is not None:
                sshd.close()


if __name__ == "__main__":
    sys.exit(main())
