# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Community collections for the tests of their connection and become plugins, out of PyPI's ``ansible`` wheel.

Of the wheel (50 MB) only the collections below are kept. Called by fixtures and the runner's threads in the pytest
process.

    python -P tests/rig/galaxy.py DIRECTORY    makes DIRECTORY a link to them; molecule calls it
"""
from __future__ import annotations

import pathlib
import sys
import zipfile

if not __package__:  # run as a command
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from rig import downloads

# One release for all versions of ansible-core: these plugins support each of them.
REQUIREMENT = 'ansible==14.5.0'
NEEDED = ('ansible.posix', 'community.docker', 'community.general', 'community.libvirt', 'community.okd',
          'containers.podman', 'kubernetes.core')


def ensure_collections() -> pathlib.Path:
    """A directory for ANSIBLE_COLLECTIONS_PATH that has the collections. Raises `RigUnavailable`."""
    return downloads.ensure(REQUIREMENT, ('--only-binary', ':all:'), _unpack)


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
