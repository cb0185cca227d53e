# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Container hosts for programs that come and go, such as molecule's playbooks: a process of its own holds them.

    python -P tests/rig/held_hosts.py start DIRECTORY NAME...   prints the inventory of the hosts as JSON
    python -P tests/rig/held_hosts.py stop DIRECTORY

`start` returns when all hosts answer; the holder ends, and removes its containers, when `stop` tells it to, or when
they end by themselves (`rig.hosts.LIFETIME`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a command
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rig.errors import RigUnavailable
from rig.hosts import LIFETIME, HostPool

START_SECONDS = 1500.0


def inventory(pool: HostPool, names: list[str]) -> dict[str, Any]:
    """Start a host for each name; variables are a user's, and ``rig_container``, podman's name of it."""
    options = f"-F none -o UserKnownHostsFile={pool.known_hosts} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    common = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(pool.private_key),
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    hosts = {name: pool.start(name) for name in names}
    listed = {
        name: {"ansible_host": host.address, "ansible_port": host.port, "rig_container": host.name}
        for name, host in hosts.items()
    }
    return {"all": {"vars": common, "hosts": listed}}


def hold(directory: Path, names: list[str]) -> None:
    """The holder: until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with HostPool() as pool:
        made = directory / "hosts.json.new"
        made.write_text(json.dumps(inventory(pool, names)))
        made.rename(directory / "hosts.json")
        time.sleep(LIFETIME)


def start(directory: Path, names: list[str]) -> None:
    """Start the holder and wait for its hosts. Raises `RigUnavailable` when it ends before."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "hold", str(directory), *names]
    with open(directory / "log", "wb") as log:
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (directory / "pid").write_text(str(holder.pid))
    deadline = time.monotonic() + START_SECONDS
    while not (directory / "hosts.json").exists():
        if holder.poll() is not None or time.monotonic() > deadline:
            raise RigUnavailable((directory / "log").read_text()[-2000:])
        time.sleep(0.1)
    print((directory / "hosts.json").read_text())


def stop(directory: Path) -> None:
    """End the holder, if it still runs, and wait for it."""
    if not (directory / "pid").exists():
        return
    number = int((directory / "pid").read_text())
    command = Path(f"/proc/{number}/cmdline")
    if command.exists() and str(directory).encode() in command.read_bytes():
        os.kill(number, signal.SIGTERM)
        while command.exists() and command.read_bytes():
            time.sleep(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "stop", "hold"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    if given.what == "stop":
        stop(given.directory)
    else:
        {"start": start, "hold": hold}[given.what](given.directory, given.names)
