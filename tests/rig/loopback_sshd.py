# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Throw-away ssh servers on loopback addresses.

Used by tests, the demo, the benchmark and (as a command) the molecule scenario; runs as root or as any user, who is
then also the only one that can log in. Everything lives in one temporary directory: host key, client key, known_hosts,
configuration, logs. Nothing of the user's own ssh configuration is read or written.

1. `start()` makes the keys, then one sshd per 16 addresses: sshd refuses more ListenAddress lines than that.
2. It logs in once with the new key before it returns, because an sshd that listens may still refuse the account
   (locked password, missing shell); `UsePAM yes` is the second try: PAM accepts accounts sshd itself calls locked.
3. `stop()` ends the servers and whatever sessions they still have, by process id.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a command
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rig import debian
from rig.errors import RigUnavailable
from rig.hosts import make_key

ADDRESSES_PER_SERVER = 16
START_SECONDS = 15.0


class LoopbackSshd:
    """Servers for loopback addresses, all on one port; a context manager.

    `private_key` and `known_hosts` are files for the client, `user` the account to log in as. `directory` (default: a
    new one, removed at the end) keeps everything the servers need.
    """

    def __init__(self, addresses: Sequence[str] = ("127.0.0.1",), port: int = 0, directory: Path | None = None) -> None:
        self.addresses = list(addresses)
        self.port = port
        self.user = getpass.getuser()
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="svc-sshd-"))
        self.private_key = self.directory / "client_key"
        self.known_hosts = self.directory / "known_hosts"
        self.servers: list[int] = []

    def __enter__(self) -> LoopbackSshd:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and remove the directory if it is ours."""
        self.stop()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def common_args(self) -> str:
        """What `ansible_ssh_common_args` must hold: no user configuration, our known_hosts, our key only."""
        return (
            f"-F none -o UserKnownHostsFile={self.known_hosts} -o GlobalKnownHostsFile=/dev/null"
            " -o IdentitiesOnly=yes -o IdentityAgent=none"
        )

    def start(self) -> None:
        """Start the servers.

        :raises RigUnavailable: there is no sshd or no ssh here, or it accepts no login.
        """
        binary = find_sshd()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port = self.port or free_port(self.addresses)
        self._make_keys()
        reason = ""
        for pam in ("no", "yes"):
            try:
                self._start_servers(binary, pam)
                self._log_in()
                return
            except RigUnavailable as error:
                reason = reason or str(error)
                self.stop()
        raise RigUnavailable(reason)

    def stop(self) -> None:
        """End the servers and their sessions. May be called more than once."""
        family = [pid for server in self.servers for pid in (server, *descendants(server))]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in family:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            deadline = time.monotonic() + 2
            while any(alive(pid) for pid in family) and time.monotonic() < deadline:
                time.sleep(0.02)
        self.servers.clear()

    def sessions(self) -> list[int]:
        """Process ids of the servers' per-connection children and what they started."""
        return [pid for server in self.servers for pid in descendants(server)]

    def inventory_variables(self) -> dict[str, object]:
        """Connection variables that hold for every host but its `ansible_host`."""
        return {
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": str(self.private_key),
            "ansible_ssh_common_args": self.common_args,
        }

    def _make_keys(self) -> None:
        for name in ("host_key", "client_key"):
            if not (self.directory / name).exists():
                make_key(self.directory / name)
        shutil.copyfile(self.directory / "client_key.pub", self.directory / "authorized_keys")
        public = (self.directory / "host_key.pub").read_text().split()[:2]
        lines = [f"[{address}]:{self.port} {' '.join(public)}\n" for address in self.addresses]
        self.known_hosts.write_text("".join(lines))

    def _start_servers(self, binary: str, pam: str) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own privilege separation directory
        for first in range(0, len(self.addresses), ADDRESSES_PER_SERVER):
            config = self._write_configuration(first, pam)
            with open(self.directory / f"sshd-{first}.log", "ab") as log:
                process = subprocess.Popen(
                    [binary, "-D", "-e", "-f", str(config)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self.servers.append(process.pid)
        deadline = time.monotonic() + START_SECONDS
        for address in self.addresses[::ADDRESSES_PER_SERVER]:
            while not accepts(address, self.port):
                if time.monotonic() > deadline or not all(alive(pid) for pid in self.servers):
                    raise RigUnavailable(f"sshd did not start: {self._log_tail()}")
                time.sleep(0.02)

    def _write_configuration(self, first: int, pam: str) -> Path:
        addresses = self.addresses[first : first + ADDRESSES_PER_SERVER]
        path = self.directory / f"sshd_config-{first}"
        path.write_text(
            "".join(f"ListenAddress {address}:{self.port}\n" for address in addresses)
            + f"HostKey {self.directory}/host_key\n"
            f"AuthorizedKeysFile {self.directory}/authorized_keys\n"
            f"PidFile {self.directory}/sshd-{first}.pid\n"
            f"UsePAM {pam}\n"
            f"AllowUsers {self.user}\n"
            "StrictModes no\n"  # the temporary directory's parents are not ours to judge
            "PermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "Subsystem sftp internal-sftp\n"
            "MaxStartups 1000\n"
            "MaxSessions 1000\n"
            "UseDNS no\n"
            "PrintMotd no\n"
            # bash reads ~/.bashrc when sshd starts it at SHLVL 0; some take 100 ms, and it is not what we measure.
            "SetEnv SHLVL=1\n"
        )
        return path

    def _log_in(self) -> None:
        command = ["ssh", *self.common_args.split(), "-o", "BatchMode=yes"]
        command += [
            "-i",
            str(self.private_key),
            "-p",
            str(self.port),
            f"{self.user}@{self.addresses[0]}",
            "echo logged-in",
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if "logged-in" not in done.stdout:
            raise RigUnavailable(f"login on loopback failed: {done.stderr.strip()}; {self._log_tail()}")

    def _log_tail(self) -> str:
        logs = sorted(self.directory.glob("sshd-*.log"))
        return " | ".join(line for log in logs for line in log.read_text(errors="replace").splitlines()[-3:])


def find_sshd() -> str:
    """The absolute path of sshd, which sshd insists on being started by.

    :raises RigUnavailable: sshd, ssh or ssh-keygen is missing.
    """
    paths = {name: debian.find_command(name) for name in ("ssh", "ssh-keygen", "sshd")}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise RigUnavailable(f"not installed: {', '.join(missing)} (Debian: openssh-server)")
    return str(paths["sshd"])


def free_port(addresses: list[str]) -> int:
    """A TCP port that is free on every address now."""
    for _attempt in range(50):
        with socket.socket() as first:
            first.bind((addresses[0], 0))
            port = int(first.getsockname()[1])
        if all(can_bind(address, port) for address in addresses):
            return port
    raise RigUnavailable(f"no port is free on all of {addresses[0]}..{addresses[-1]}")


def can_bind(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def accepts(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def alive(pid: int) -> bool:
    """Whether the process runs; reaps it when it was our child and has ended."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def descendants(ancestor: int) -> list[int]:
    """Process ids of everything below ancestor, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [ancestor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def main() -> int:
    """`start DIR` leaves a server running and prints its port; `stop DIR` ends it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--address", nargs="+", default=["127.0.0.1"], help="default: %(default)s")
    options = parser.parse_args()
    sshd = LoopbackSshd(options.address, directory=options.directory)
    if options.action == "stop":
        sshd.servers = [int(path.read_text()) for path in options.directory.glob("sshd-*.pid")]
        sshd.stop()
        return 0
    try:
        sshd.start()
    except RigUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    print(sshd.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
