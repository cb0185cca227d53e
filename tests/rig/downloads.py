# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What tests need of files on PyPI, and the repository does not have: downloaded once per machine and user, and kept.

Called by fixtures and threads of the pytest process; several processes may ask at once.
"""
from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence

from rig.errors import RigUnavailable

DOWNLOAD_SECONDS = 600
#: Called with a downloaded file and the directory to make.
Unpack = Callable[[pathlib.Path, pathlib.Path], None]
_lock = threading.Lock()
_ready: dict[str, pathlib.Path] = {}


def ensure(requirement: str, options: Sequence[str], unpack: Unpack) -> pathlib.Path:
    """The directory into which `unpack` has put what is wanted of the file of `requirement`.

    :param requirement: ``NAME==VERSION``.
    :param options: of ``pip download``, such as which kind of file.
    :raises RigUnavailable: it cannot be downloaded.
    """
    with _lock:
        if requirement not in _ready:
            _ready[requirement] = _ensure(requirement, options, unpack)
        return _ready[requirement]


def _ensure(requirement: str, options: Sequence[str], unpack: Unpack) -> pathlib.Path:
    cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
    place = cache / 'ansible_mitogen_svc-tests' / requirement.replace('==', '-')
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(place.with_name(f'{place.name}.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=place.parent) as directory:
                unpacked = pathlib.Path(directory, 'unpacked')
                unpack(_download(requirement, options, pathlib.Path(directory, 'files')), unpacked)
                shutil.move(unpacked, place)
    return place


def _download(requirement: str, options: Sequence[str], directory: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--quiet', '--no-deps',
               '--ignore-requires-python', *options, '--dest', str(directory), requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RigUnavailable(f'{requirement} could not be downloaded: {done.stderr[-1000:]}')
    return next(directory.iterdir())
