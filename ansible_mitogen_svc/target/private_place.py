# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The directory of a user's store, and whether nobody else could have written there.

Shipped to hosts. The first of our modules that runs there: boot.py asks before it loads byte code, store.py before it
keeps anything. Hence small, and without imports that a bare Python has not made yet.
"""

from __future__ import annotations

import os
import stat


def default_root() -> str | None:
    """Return the path of this user's store, created if need be; None when there is no place nobody else controls."""
    import pwd

    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
        if not home.startswith('/') or not os.path.isdir(home):
            return None
        root = os.path.join(os.path.realpath(home), '.cache', 'ansible_mitogen_svc')
        os.makedirs(os.path.dirname(root), 0o700, exist_ok=True)
    except (KeyError, OSError):
        return None
    return root if make_private(root) else None


def is_own_directory(path: str) -> bool:
    """Say whether `path` itself, not what a link of that name leads to, is a directory of the effective user."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def make_private(root: str) -> bool:
    """Make `root` a 0700 directory of the effective user and say whether it can be trusted."""
    try:
        try:
            os.mkdir(root, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(root)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        if not _parents_are_safe(os.path.realpath(os.path.dirname(root))):
            return False
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(root, 0o700)
        return True
    except OSError:
        return False


def _parents_are_safe(path: str) -> bool:
    """Say whether only root and the effective user can rename or replace anything on the way to `path`."""
    while True:
        found = os.lstat(path)
        if found.st_uid not in (0, os.geteuid()):
            return False
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return False
        if found.st_mode & stat.S_IWGRP and not found.st_mode & stat.S_ISVTX and not _is_own_group(found.st_gid):
            return False
        parent = os.path.dirname(path)
        if parent == path:
            return True
        path = parent


def _is_own_group(gid: int) -> bool:
    """Say whether a group is root's or holds nobody but the effective user (user private groups, umask 002)."""
    import grp
    import pwd

    if gid == 0:
        return True
    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}
