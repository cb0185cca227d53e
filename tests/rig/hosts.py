# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Container hosts reachable by ssh, for one test session.

How it works

1. A `HostPool` belongs to one test session. It makes one throw-away key pair and host key and mounts them read-only.
2. Each host is a container in the machine's network name space whose sshd listens on a loopback address of its own
   (127.64.x.y:2222): that needs neither bridge nor port forwarding, and facts about the network are the same for all.
   It has process, mount, IPC and UTS name spaces of its own, so `Host.processes` sees only the target's.
3. Hosts start from the pristine image in about 0.3 s: a run that needs a known state takes a new one and drops it.
4. Containers carry the owner's process id as a label, are removed on `HostPool.close`, and end by themselves after
   `LIFETIME` seconds. `sweep` removes those whose owner is gone (killed by SIGKILL).

Fixtures own the pool (pytest process, main thread); `start` may be called from several threads.
"""
from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator

from rig import image, podman
from rig.errors import RigUnavailable

PORT = 2222
LIFETIME = 3600
OWNER_LABEL = 'svc-rig-owner'
START_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Process:
    """One process of a host as its ``/proc`` shows it; ``comm`` is the kernel's 15 character name."""

    pid: int
    ppid: int
    comm: str
    command: str


@dataclasses.dataclass(frozen=True)
class Host:
    """A running container: ``name`` is podman's, ``address`` and ``port`` are where its sshd answers."""

    name: str
    address: str
    port: int

    def shell(self, script: str, check: bool = True, timeout: float = 60) -> str:
        """Run a shell script as root inside, not over ssh; returns its stdout."""
        return podman.run('exec', self.name, 'sh', '-c', script, check=check, timeout=timeout)

    def processes(self) -> list[Process]:
        """All processes of the container but the ones that list them."""
        listing = self.shell("ps -eo pid=,ppid=,comm:20=,args= | grep -v -e 'ps -eo' -e 'grep -v'")
        found = []
        for line in listing.splitlines():
            pid, ppid, comm, *command = line.split(None, 3)
            found.append(Process(int(pid), int(ppid), comm, command[0] if command else ''))
        return found

    def pids_named(self, comm: str) -> list[int]:
        """Process ids of the processes with this ``comm``."""
        return [process.pid for process in self.processes() if process.comm == comm]

    def kill(self, comm: str, signal: str = 'KILL') -> int:
        """Send a signal to every process with this ``comm``; returns how many there were."""
        pids = self.pids_named(comm)
        if pids:
            self.shell(f'kill -{signal} {" ".join(map(str, pids))}', check=False)
        return len(pids)

    def files(self) -> set[str]:
        """Paths below the places where a run may leave something: temporary directories and homes."""
        listing = self.shell('find /tmp /var/tmp /dev/shm /root /home /run -xdev 2>/dev/null', check=False)
        return set(listing.splitlines())


class HostPool:
    """Makes hosts and removes them; context manager. Raises `RigUnavailable` where podman cannot be used."""

    def __init__(self) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='svc-rig-'))
        self.private_key = self.directory / 'id_ed25519'
        self.known_hosts = self.directory / 'known_hosts'
        self._mount = self.directory / 'mount'
        self._numbers = itertools.count(1)
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self._image = ''
        self._started = 0

    def __enter__(self) -> HostPool:
        try:
            sweep()
            self._image = image.ensure_image()
            self._make_keys()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _make_keys(self) -> None:
        self._mount.mkdir(mode=0o755)
        self.directory.chmod(0o711)
        make_key(self.private_key)
        make_key(self._mount / 'host_key')
        shutil.copy(self.private_key.with_suffix('.pub'), self._mount / 'authorized_keys')
        key = ' '.join((self._mount / 'host_key.pub').read_text().split()[:2])
        self.known_hosts.write_text(f'[127.*]:{PORT} {key}\n')

    def start(self, hostname: str = 'target') -> Host:
        """A new container from the pristine image; returns once its sshd accepts connections."""
        with self._lock:
            number = next(self._numbers)
            name = f'svc-rig-{os.getpid()}-{number}'
            self._names.add(name)
        host = Host(name, self._free_address(number), PORT)
        podman.run('run', '--detach', '--rm', '--name', name, '--label', f'{OWNER_LABEL}={os.getpid()}',
                   '--network', 'host', '--uts', 'private', '--hostname', hostname,
                   '--add-host', f'{hostname}:127.0.0.1', '--timeout', str(LIFETIME),
                   '--volume', f'{self._mount}:/rig:ro', '--env', f'RIG_LISTEN={host.address}:{PORT}',
                   self._image, 'tini', '--', '/usr/local/sbin/rig-init')
        _wait_for_banner(host)
        with self._lock:
            self._started += 1
        return host

    @staticmethod
    def _free_address(number: int) -> str:
        """An address of 127.64.0.0/12 that nobody listens on; sessions side by side start at different ones."""
        for step in range(50):
            slot = (os.getpid() * 251 + number + step * 1009) % (16 * 65536)
            address = f'127.{64 + (slot >> 16)}.{(slot >> 8) & 255}.{max(1, slot & 255)}'
            with contextlib.closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, PORT))
                except OSError:
                    continue
                return address
        raise RigUnavailable('no free loopback address')

    def remove(self, host: Host) -> None:
        """End a host at once."""
        podman.run('rm', '--force', '--time', '0', host.name, check=False)
        with self._lock:
            self._names.discard(host.name)

    @contextlib.contextmanager
    def host(self, hostname: str = 'target') -> Iterator[Host]:
        """A host for the length of a ``with`` block."""
        host = self.start(hostname)
        try:
            yield host
        finally:
            self.remove(host)

    def statistics(self) -> dict[str, int]:
        """``started``: hosts so far, ``running``: those not removed yet."""
        with self._lock:
            return {'started': self._started, 'running': len(self._names)}

    def close(self) -> None:
        """Remove every host and the keys; may be called twice."""
        with self._lock:
            names, self._names = sorted(self._names), set()
        if names:
            podman.run('rm', '--force', '--time', '0', *names, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def make_key(path: pathlib.Path) -> None:
    """A new ed25519 key pair without pass phrase: ``path`` (0600) and ``path.pub``."""
    subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'throw-away', '-f', str(path)],
                   check=True, timeout=30, stdin=subprocess.DEVNULL)


def sweep() -> None:
    """Remove containers of this rig whose owner no longer runs."""
    listing = podman.run('ps', '--all', '--filter', f'label={OWNER_LABEL}', '--format', '{{.Names}}', check=False)
    for name in listing.split():
        owner = name.split('-')[2] if name.count('-') == 3 else ''
        if owner.isdigit() and not os.path.exists(f'/proc/{owner}'):
            podman.run('rm', '--force', '--time', '0', name, check=False)


def _wait_for_banner(host: Host) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.create_connection((host.address, host.port), timeout=2) as probe:
                if probe.recv(4) == b'SSH-':
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            logs = podman.run('logs', host.name, check=False)
            raise RigUnavailable(f'sshd of {host.name} did not answer on {host.address}:{host.port}: {logs[-1000:]}')
        time.sleep(0.03)
