# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Private parts of core's ssh connection plugin (ansible/plugins/connection/ssh.py).

Checked on ansible-core 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1. What differs: up to 2.20 `_build_command` puts
``sshpass -dN`` in front by itself, from 2.21 on `_sshpass_cmd` does it later.

`missing` says what a core lacks of all this, whatever its version: the transport is not used then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.connection import ssh

from ansible_mitogen_svc.controller.compat.probe import Names, missing_names
from ansible_mitogen_svc.services.bootstrap import PASSWORD_FD

_MODULE = "ansible.plugins.connection.ssh"
_NAMES_USED: Names = (
    (_MODULE, "_ssh_retry", frozenset()),
    (_MODULE, "Connection._build_command", frozenset({"binary", "subsystem"})),
    (_MODULE, "Connection._init_shm", frozenset()),
    (_MODULE, "Connection.__init__.__code__.co_names", frozenset()),
)
#: Set by the plugin's constructor.
_ATTRIBUTES_USED = ("host", "user", "shm", "sshpass_pipe")


def missing() -> list[str]:
    """Names of core's plugin that are used here and that this core lacks."""
    found = missing_names(_NAMES_USED)
    if found:
        return found
    given = ssh.Connection.__init__.__code__.co_names
    return [f"{_MODULE}.Connection().{name}" for name in _ATTRIBUTES_USED if name not in given]


@dataclass(frozen=True)
class PasswordSource:
    """A command and how it gets the connection's password.

    Attributes:
        argv: the command, with sshpass in front where the plugin wants that.
        environment: whole environment, or None for ours; names the shared memory that askpass reads.
        password: the password, however it is handed over; None when there is none.
    """

    argv: list[bytes]
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    password: bytes | None = field(default=None, repr=False)


class _Attempt:
    """Looks to core's retry decorator like the method it decorates in the plugin."""

    def __init__(self, connection: Any, function: Callable[[], tuple[int, bytes, bytes]]) -> None:
        self._connection = connection
        self._function = function

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def run(self, command: list[bytes]) -> tuple[int, bytes, bytes]:
        return self._function()


def attempt(connection: Any, argv: list[bytes], function: Callable[[], tuple[int, bytes, bytes]]) -> None:
    """Call `function` with core's retries (``reconnection_retries``) and core's errors for what it returns.

    :raises AnsibleConnectionFailure: it failed, in core's words; AnsibleAuthenticationFailure is one.
    """
    ssh._ssh_retry(_Attempt.run)(_Attempt(connection, function), argv)


def look_for_sshpass() -> None:
    """Let the plugin find an sshpass that was not there when a task looked for it first.

    It remembers what it found; under core that is forgotten with each worker process.
    """
    if getattr(ssh, "SSHPASS_AVAILABLE", None) is False and shutil.which("sshpass"):
        ssh.SSHPASS_AVAILABLE = True


@contextlib.contextmanager
def password_source(connection: Any, argv: list[bytes]) -> Iterator[PasswordSource]:
    """What the plugin sets up for the password, and its removal afterwards."""
    password = connection.get_option("password") or connection._play_context.password
    command = list(argv)
    try:
        environment = connection._init_shm().get("env")
        if command[0] != b"sshpass" and hasattr(connection, "_sshpass_cmd"):
            command[:0] = connection._sshpass_cmd()
        if command[0] == b"sshpass":
            command[1] = PASSWORD_FD
        yield PasswordSource(command, environment, password.encode("utf-8", "surrogateescape") if password else None)
    finally:
        _clean_up(connection)


def _clean_up(connection: Any) -> None:
    """The plugin's own cleaning up: its pipe (whoever starts ssh makes another) and shared memory."""
    for descriptor in connection.sshpass_pipe or ():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    connection.sshpass_pipe = None
    if connection.shm:
        connection.shm.close()
        with contextlib.suppress(FileNotFoundError):
            connection.shm.unlink()
        connection.shm = None


def explain_host_key(connection: Any, argv: list[bytes], returncode: int | None, stderr: bytes) -> None:
    """The plugin's error for a password that cannot be used because the host key is not known.

    :raises AnsibleError: that is what happened; wording and condition as in core's `_bare_run`.
    """
    password = connection.get_option("password") or connection._play_context.password
    failed = (
        (argv[0] == b"sshpass" and returncode == 6)
        or b"read_passphrase: can't open /dev/tty" in stderr
        or b"Host key verification failed" in stderr
    )
    checked = connection.get_option("password_mechanism") and connection.get_option("host_key_checking")
    if password and failed and checked:
        raise AnsibleError(
            "Using a SSH password instead of a key is not possible because Host Key checking is enabled. "
            "Please add this host's fingerprint to your known_hosts file to manage this host."
        )
