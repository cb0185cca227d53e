# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""ansible-core's own integration targets, out of its source distribution, run on a host of the rig.

How it works

1. The source distribution of the ansible-core that runs the tests has what its wheel leaves out; only the targets are
   kept, and nothing of them is in this repository.
2. A target is a role, or a directory with a ``runme.sh``. It expects an inventory two directories above it that has a
   ``testhost``, and some environment variables that ansible-test would set. Each run gets a tree of its own: a copy of
   the target, which may write there, beside links to the others, which it may need.
3. ``testhost`` is a container by ssh. Targets about the controller alone get it as a local connection; only such as are
   harmless on a developer's machine may be run that way.

Called by the tests in the pytest process.
"""
from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
from typing import Any

from rig import downloads
from rig.hosts import Host
from rig.playbook import Runner, Setting

TARGET_SECONDS = 900
WITHIN = 'test/integration/targets/'
ENVIRONMENT = {
    'ANSIBLE_DEPRECATION_WARNINGS': 'false', 'ANSIBLE_DEVEL_WARNING': 'false', 'ANSIBLE_FORCE_HANDLERS': 'true',
    'ANSIBLE_FORCE_COLOR': 'false', 'ANSIBLE_HOST_PATTERN_MISMATCH': 'error', 'ANSIBLE_HOST_KEY_CHECKING': 'false',
    'ANSIBLE_DISPLAY_TRACEBACK': 'never', 'ANSIBLE_TEST_PYTHON_INTERPRETER': sys.executable, 'LC_ALL': 'C.UTF-8',
}


def ensure_targets() -> pathlib.Path:
    """The directory of all targets. Raises `RigUnavailable`."""
    requirement = f'ansible-core=={importlib.metadata.version("ansible-core")}'
    return downloads.ensure(requirement, ('--no-binary', 'ansible-core'), _unpack)


def _unpack(archive: pathlib.Path, place: pathlib.Path) -> None:
    with tarfile.open(archive) as source:
        for member in source:
            _, _, name = member.name.partition('/')
            if name.startswith(WITHIN):
                member.name = name[len(WITHIN):]
                if member.islnk():
                    member.linkname = member.linkname.partition(WITHIN)[2]
                # targets depend on modes that the filter 'data' would change
                source.extract(member, place, filter='tar')


class CoreTargets:
    """Runs targets; `runner` starts their programs."""

    def __init__(self, runner: Runner, targets: pathlib.Path) -> None:
        self._runner = runner
        self._targets = targets

    def run(self, name: str, host: Host | None, setting: Setting) -> subprocess.CompletedProcess[str]:
        """Run a target to its end.

        :param host: the ``testhost``; None for a local connection.
        :returns: with everything that was printed as ``stdout``.
        """
        testhost = _local() if host is None else _by_ssh(host)
        home = self._runner.place({'testhost': testhost}, setting)
        integration = home / 'integration'
        self._make_tree(integration, name)
        inventory = json.loads(json.dumps(self._runner.inventory({'testhost': testhost})))
        inventory['all']['children'] = {'testgroup': {'hosts': {'testhost': None}}}
        (integration / 'inventory').write_text(json.dumps(inventory))
        (home / 'output').mkdir()
        more = {**ENVIRONMENT, 'OUTPUT_DIR': str(home / 'output'), 'INVENTORY_PATH': str(integration / 'inventory'),
                'ANSIBLE_PLAYBOOK_DIR': str(integration)}
        if (integration / 'targets' / name / 'runme.sh').exists():
            command, place = ['./runme.sh', '-v'], integration / 'targets' / name
        else:
            more['ANSIBLE_ROLES_PATH'] = str(integration / 'targets')
            command, place = self._playbook(integration, name, home), integration
        return subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=TARGET_SECONDS, errors='replace',
                              env=self._runner.environment(home, setting, more))

    def _make_tree(self, integration: pathlib.Path, name: str) -> None:
        (integration / 'targets').mkdir(parents=True)
        for target in os.listdir(self._targets):
            if target == name:
                shutil.copytree(self._targets / name, integration / 'targets' / name, symlinks=True)
            else:
                (integration / 'targets' / target).symlink_to(self._targets / target)

    @staticmethod
    def _playbook(integration: pathlib.Path, name: str, home: pathlib.Path) -> list[str]:
        aliases = integration / 'targets' / name / 'aliases'
        facts = 'gather_facts/no' not in (aliases.read_text() if aliases.exists() else '')
        play = {'hosts': 'testhost', 'gather_facts': facts, 'roles': [name],
                'vars': {'output_dir': str(home / 'output')}}
        (integration / 'play.yml').write_text(json.dumps([play]))
        return ['ansible-playbook', '-i', 'inventory', '-v', 'play.yml']


def _by_ssh(host: Host) -> dict[str, Any]:
    return {'ansible_host': host.address, 'ansible_port': host.port, 'ansible_user': 'root', 'ansible_pipelining': True}


def _local() -> dict[str, Any]:
    return {'ansible_connection': 'local', 'ansible_pipelining': True, 'ansible_python_interpreter': sys.executable}
