# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The podman command line with the settings of ``containers.conf`` here. Runs in the pytest process, any thread."""
from __future__ import annotations

import os
import pathlib
import subprocess
from typing import IO

from rig.errors import RigUnavailable

CONFIGURATION = pathlib.Path(__file__).with_name('containers.conf')


def environment() -> dict[str, str]:
    """The environment podman has to be started with."""
    return {**os.environ, 'CONTAINERS_CONF': os.environ.get('CONTAINERS_CONF', str(CONFIGURATION))}


def run(*arguments: str, stdin: IO[bytes] | int | None = subprocess.DEVNULL, check: bool = True,
        timeout: float = 120) -> str:
    """Run one podman command (``timeout`` in seconds); returns its stdout without trailing blanks.

    Raises `RigUnavailable` with podman's stderr when ``check`` and it failed.
    """
    done = subprocess.run(['podman', *arguments], stdin=stdin, capture_output=True, env=environment(), timeout=timeout)
    if check and done.returncode:
        raise RigUnavailable(f'podman {arguments[0]} failed ({done.returncode}): '
                             f'{done.stderr.decode(errors="replace")[-2000:]}')
    return done.stdout.decode(errors='replace').rstrip()


def image_exists(name: str) -> bool:
    """Whether the local store has an image of this name and tag."""
    return subprocess.run(['podman', 'image', 'exists', name], env=environment(), timeout=60).returncode == 0
