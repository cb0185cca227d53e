# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Tells whether a new become command would make another process now than it made of this one.

Core becomes anew for every task, so a playbook sees at once which groups a user has joined, which limits hold, what a
login file sets, and that sudo refuses. A zygote asks here before it takes a job that wants that. Runs in the zygote.
"""

from __future__ import annotations

import os
import pwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What shells read when they become somebody with a login of their own, or are only given a command (bash, zsh, csh,
#: fish), below the home.
_OF_THE_HOME = (
    '.profile .bash_profile .bash_login .bashrc .zshenv .zprofile .cshrc .tcshrc .login .config/fish/config.fish '
    '.pam_environment'
).split()
_OF_SHELLS = (
    '/etc/profile /etc/profile.d /etc/bash.bashrc /etc/bashrc /etc/zshenv /etc/zsh/zshenv /etc/csh.cshrc '
    '/etc/csh.login /etc/fish/config.fish'
).split()
#: What a session takes from the system.
_OF_SESSIONS = (
    '/etc/environment /etc/default/locale /etc/locale.conf /etc/security/limits.conf /etc/security/limits.d '
    '/etc/security/pam_env.conf'
).split()
#: Who may become whom, and how.
_OF_BECOMING = '/etc/sudoers /etc/sudoers.d /etc/doas.conf /etc/pam.d /etc/login.defs'.split()
#: These list everybody, so a change is looked into.
_OF_EVERYBODY = '/etc/passwd', '/etc/group'
ENTRIES = 64
"""Files of a directory that are looked at; what is added or removed is seen in the directory itself."""


def signature_of(path: str) -> Any:
    """Return what tells that a file was replaced or written to; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


class Account:
    """The account of this process as it was when the process began."""

    def __init__(self) -> None:
        self._entry = _entry()
        self._groups = {os.getegid(), *os.getgroups()}
        home = self._entry[0] if self._entry else os.environ.get('HOME', '')
        files = [os.path.join(home, name) for name in _OF_THE_HOME] if home.startswith('/') else []
        for path in (*_OF_SHELLS, *_OF_SESSIONS, *_OF_BECOMING):
            files += [path, *_entries(path)]
        self._files = {path: signature_of(path) for path in files}
        self._everybody = self._signatures_of_everybody()

    @staticmethod
    def _signatures_of_everybody() -> list[Any]:
        return [signature_of(path) for path in _OF_EVERYBODY]

    def changed(self) -> str:
        """Return the path of a file whose change concerns this account; empty when there is none."""
        for path, before in self._files.items():
            if signature_of(path) != before:
                return path
        everybody = self._signatures_of_everybody()
        if everybody != self._everybody:
            self._everybody = everybody
            entry = _entry()
            if entry != self._entry:
                return '/etc/passwd'
            if entry is not None and not self._same_groups(entry):
                return '/etc/group'
        return ''

    def _same_groups(self, entry: tuple[Any, ...]) -> bool:
        return {entry[3], *os.getgrouplist(entry[2], entry[3])} == self._groups


def _entry() -> tuple[Any, ...] | None:
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        return None
    return entry.pw_dir, entry.pw_shell, entry.pw_name, entry.pw_gid


def _entries(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in sorted(os.listdir(directory))[:ENTRIES]]
    except OSError:
        return []
