# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The container image of the test hosts: debootstrap from this machine's mirror, provisioned, imported into podman.

The tag is the hash of everything that decides the content, so a changed script builds a new image and an unchanged
one is found at once. Runs in the pytest process; ``python -m rig.image`` (in ``tests/``) builds it ahead.
"""
from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from rig import debian, podman
from rig.errors import RigUnavailable

HERE = pathlib.Path(__file__).parent
REPOSITORY = 'localhost/svc-rig'
PACKAGES = (
    'acl', 'bzip2', 'ca-certificates', 'file', 'fish', 'iproute2', 'openssh-server', 'passwd', 'procps', 'psmisc',
    'python3', 'python3-apt', 'sudo', 'tar', 'tcsh', 'tini', 'unzip', 'xz-utils', 'zip',
)
BUILD_SECONDS = 1200
ATTEMPTS = 3


def image_name() -> str:
    """Name and tag of the image; the tag changes with the mirror's suite, the package list and ``provision.sh``."""
    mirror = debian.configured_mirror()
    parts = [mirror.suite, mirror.components, *PACKAGES, (HERE / 'provision.sh').read_text()]
    return f'{REPOSITORY}:{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}'


def ensure_image() -> str:
    """Build the image unless there is one; returns its name. Raises `RigUnavailable`.

    One process builds, others that ask meanwhile wait for it.
    """
    name = image_name()
    if podman.image_exists(name):
        return name
    if os.geteuid() != 0:
        raise RigUnavailable(f'image {name} is missing and debootstrap needs root: run python -m rig.image as root')
    with open(pathlib.Path(tempfile.gettempdir()) / f'svc-rig-image-{os.getuid()}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not podman.image_exists(name):
            _build(name)
    return name


def _build(name: str) -> None:
    root = pathlib.Path(tempfile.mkdtemp(prefix='svc-rig-root-'))
    try:
        _bootstrap(root)
        shutil.copy(HERE / 'provision.sh', root / 'provision.sh')
        _run(['chroot', str(root), 'sh', '/provision.sh'])
        (root / 'provision.sh').unlink()
        archive = subprocess.Popen(['tar', '-C', str(root), '-c', '.'], stdout=subprocess.PIPE)
        podman.run('import', '-', name, stdin=archive.stdout, timeout=BUILD_SECONDS)
        if archive.wait(timeout=60):
            raise RigUnavailable(f'tar of {root} failed')
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _bootstrap(root: pathlib.Path) -> None:
    mirror = debian.configured_mirror()
    command = [debian.find_command('debootstrap') or 'debootstrap', '--variant=minbase',
               f'--components={mirror.components}', f'--include={",".join(PACKAGES)}']
    if mirror.keyring:
        command.append(f'--keyring={mirror.keyring}')
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _run([*command, mirror.suite, str(root), mirror.url], **debian.proxy_environment())
            return
        except RigUnavailable:
            if attempt == ATTEMPTS:
                raise
            # a mirror that dropped one download; debootstrap continues with what it already has
            time.sleep(5 * attempt)


def _run(command: list[str], **environment: str) -> None:
    path = f"{os.environ.get('PATH', '')}:{debian.SBIN}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, stdin=subprocess.DEVNULL,
                          env={**os.environ, 'PATH': path, 'LC_ALL': 'C.UTF-8', **environment})
    if done.returncode:
        raise RigUnavailable(f'{command[0]} failed ({done.returncode}): {done.stdout[-1500:]}{done.stderr[-1500:]}')


if __name__ == '__main__':
    debian.ensure_commands('podman', 'runc', 'debootstrap')
    print(ensure_image(), file=sys.stdout)
