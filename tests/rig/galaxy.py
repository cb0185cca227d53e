# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Community collections for the tests of their connection and become plugins, out of PyPI's ``ansible`` wheel.

The wheel (50 MB) is downloaded once per machine and user; only the collections below are unpacked, and kept. Called by
fixtures and the runner's threads in the pytest process; several processes may ask at once.

    python -P tests/rig/galaxy.py DIRECTORY    makes DIRECTORY a link to them; molecule calls it
"""
from __future__ import annotations

import fcntl
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile

if not __package__:  # run as a command
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from rig.errors import RigUnavailable

# One release for all versions of ansible-core: these plugins support each of them.
REQUIREMENT = 'ansible==14.5.0'
NEEDED = ('ansible.posix', 'community.docker', 'community.general', 'community.libvirt', 'community.okd',
          'containers.podman', 'kubernetes.core')
DOWNLOAD_SECONDS = 600
_lock = threading.Lock()


def ensure_collections() -> pathlib.Path:
    """A directory for ANSIBLE_COLLECTIONS_PATH that has the collections. Raises `RigUnavailable`."""
    with _lock:
        return _ensure()


@functools.cache
def _ensure() -> pathlib.Path:
    cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
    place = cache / 'ansible_mitogen_svc-tests' / REQUIREMENT.replace('==', '-')
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(place.with_suffix('.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=place.parent) as directory:
                _unpack(_download(directory), pathlib.Path(directory, 'unpacked'))
                shutil.move(pathlib.Path(directory, 'unpacked'), place)
    return place


def _download(directory: str) -> pathlib.Path:
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--quiet', '--no-deps',
               '--ignore-requires-python', '--only-binary', ':all:', '--dest', directory, REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RigUnavailable(f'{REQUIREMENT} could not be downloaded: {done.stderr[-1000:]}')
    return next(pathlib.Path(directory).glob('*.whl'))


def _unpack(wheel: pathlib.Path, place: pathlib.Path) -> None:
    prefixes = tuple(f'ansible_collections/{name.replace(".", "/")}/' for name in NEEDED)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place, [name for name in archive.namelist() if name.startswith(prefixes)])


def link(place: pathlib.Path) -> None:
    """Make ``place`` a link to the collections; it may be one already. Raises `RigUnavailable`."""
    if place.is_symlink():
        place.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(ensure_collections())


if __name__ == '__main__':
    link(pathlib.Path(sys.argv[1]))
