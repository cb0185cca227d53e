# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A throw-away sshd of the machine itself on loopback addresses, for tests, bench and demo without containers.

Log-ins are those of the account that runs the test, by a key made for this server. Runs as a child process;
`close` ends it together with the sessions it still has.
"""
from __future__ import annotations

import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from rig import debian
from rig.errors import RigUnavailable
from rig.hosts import make_key

START_SECONDS = 10


class LoopbackSshd:
    """One sshd listening on every address of ``addresses`` at one free port; context manager.

    ``private_key`` and ``known_hosts`` are files for the client, ``user`` the account to log in as.
    """

    def __init__(self, addresses: tuple[str, ...] = ('127.0.0.1',), port: int = 0) -> None:
        self.addresses = addresses
        self.port = port or _free_port(addresses)
        self.user = getpass.getuser()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='svc-sshd-'))
        self.private_key = self.directory / 'id_ed25519'
        self.known_hosts = self.directory / 'known_hosts'
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LoopbackSshd:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _start(self) -> None:
        program = debian.find_command('sshd')
        if program is None:
            raise RigUnavailable('sshd is not installed (Debian: openssh-server)')
        if os.geteuid() == 0:
            os.makedirs('/run/sshd', exist_ok=True)
        make_key(self.private_key)
        make_key(self.directory / 'host_key')
        key = ' '.join((self.directory / 'host_key.pub').read_text().split()[:2])
        self.known_hosts.write_text(''.join(f'[{address}]:{self.port} {key}\n' for address in self.addresses))
        (self.directory / 'sshd_config').write_text(self._configuration())
        log = open(self.directory / 'log', 'wb')
        with log:
            self._process = subprocess.Popen([program, '-D', '-e', '-f', str(self.directory / 'sshd_config')],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._wait()

    def _configuration(self) -> str:
        listen = ''.join(f'ListenAddress {address}:{self.port}\n' for address in self.addresses)
        return (f'{listen}HostKey {self.directory}/host_key\nAuthorizedKeysFile {self.private_key}.pub\n'
                'StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nUseDNS no\nPidFile none\n'
                'MaxSessions 500\nMaxStartups 500:30:1000\nPrintMotd no\nSubsystem sftp internal-sftp\n')

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        for address in self.addresses:
            while True:
                try:
                    socket.create_connection((address, self.port), timeout=2).close()
                    break
                except OSError as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        text = (self.directory / 'log').read_text(errors='replace')
                        raise RigUnavailable(f'no sshd on {address}:{self.port}: {error}; {text}') from error
                    time.sleep(0.03)

    def sessions(self) -> list[int]:
        """Process ids of the server's per-connection children."""
        if self._process is None:
            return []
        try:
            text = pathlib.Path(f'/proc/{self._process.pid}/task/{self._process.pid}/children').read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def close(self) -> None:
        """End the server and its sessions, remove its files; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            for pid in _descendants(process.pid):
                try:
                    os.kill(pid, signal.SIGTERM)
                except OSError:
                    pass
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
        for child in task.read_text().split():
            found += [*_descendants(int(child)), int(child)]
    return found


def _free_port(addresses: tuple[str, ...]) -> int:
    with socket.socket() as probe:
        probe.bind((addresses[0], 0))
        return int(probe.getsockname()[1])
