# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The playbook targets of ``tests/integration/targets``: what they declare, and their runs in the background.

A target is a directory with ``playbook.yml`` and, where needed, ``target.yml``:

``arguments``    further ansible-playbook arguments
``environment``  further environment variables; {playbook}, {run}, {collections} stand for directories
``prepare``      a shell command to run first, in the target's directory; the same {names}
``returncode``   what ansible-playbook has to end with (0)
``long``         true: only with ``-m long``
``collections``  true: the collections of `rig.galaxy` are found
``volatile``     list of {field, reason, task}: fields that may differ, see `Tolerance` of the comparison
``lockstep``     why the playbook means the same each time only when hosts take each task together (linear, debug)
``cold``         {reason in the statistics, * wild: why modules of this target do not run in the zygote}

While working on our side, RIG_CORE_RESULTS=DIRECTORY keeps the runs under core there and uses them again as long as
the target, the rig and ansible-core are the same; without it both sides always run.

`TargetRuns` belongs to a session fixture; its pool threads start two fresh hosts per run, so every run begins in the
same state, and drop them after it.
"""
from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import yaml

from ansible_mitogen_svc.comparison.results import Tolerance
from rig import galaxy
from rig.errors import RigUnavailable
from rig.hosts import Host, HostPool
from rig.playbook import CORE, PlaybookRun, Runner, Setting


@dataclasses.dataclass(frozen=True)
class Target:
    """One directory below ``targets``, see the module's text for the fields."""

    directory: pathlib.Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prepare: str = ''
    returncode: int = 0
    long: bool = False
    collections: bool = False
    volatile: tuple[Tolerance, ...] = ()
    cold: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lockstep: str = ''

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.name


def load(directory: pathlib.Path) -> Target:
    """Read a target's declaration. Raises TypeError for an unknown key."""
    path = directory / 'target.yml'
    declared: dict[str, Any] = (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
    volatile = tuple(Tolerance(**entry) for entry in declared.pop('volatile', ()))
    arguments = tuple(map(str, declared.pop('arguments', ())))
    return Target(directory, volatile=volatile, arguments=arguments, **declared)


def load_all(root: pathlib.Path) -> list[Target]:
    """Every target below ``root``, by name."""
    return [load(path.parent) for path in sorted(root.glob('*/playbook.yml'))]


def inventory(first: Host, second: Host) -> dict[str, dict[str, Any]]:
    """``alpha``: root's login on one machine; on the other ``beta`` may sudo freely, ``gamma`` with its password."""
    def at(host: Host, user: str) -> dict[str, Any]:
        return {'ansible_host': host.address, 'ansible_port': host.port, 'ansible_user': user,
                'rig_container': host.name}
    return {'alpha': at(first, 'root'), 'beta': at(second, 'ops'), 'gamma': at(second, 'deploy')}


class TargetRuns:
    """Runs of targets by (target, setting); each pair runs once, whoever asks."""

    def __init__(self, pool: HostPool, runner: Runner) -> None:
        self._pool = pool
        self._runner = runner
        self._executor = concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 2), 'target-run')
        self._futures: dict[tuple[str, str], concurrent.futures.Future[PlaybookRun]] = {}

    def submit(self, target: Target, settings: Iterable[Setting]) -> None:
        """Queue the runs that are not queued yet."""
        for setting in settings:
            key = target.name, setting.name
            if key not in self._futures:
                self._futures[key] = self._executor.submit(self._run, target, setting)

    def result(self, target: Target, setting: Setting) -> PlaybookRun:
        """Wait for a run."""
        self.submit(target, (setting,))
        try:
            return self._futures[target.name, setting.name].result()
        except RigUnavailable as reason:
            pytest.skip(f'{target.name}: {reason}')

    def _run(self, target: Target, setting: Setting) -> PlaybookRun:
        kept = _kept_path(target) if setting is CORE else None
        if kept is not None and kept.exists():
            return PlaybookRun(**json.loads(kept.read_text()))
        run = self._run_afresh(target, setting)
        if kept is not None and run.returncode == target.returncode:
            kept.write_text(json.dumps(dataclasses.asdict(run)))
        return run

    def _run_afresh(self, target: Target, setting: Setting) -> PlaybookRun:
        environment = dict(target.environment)
        if target.collections:
            environment['ANSIBLE_COLLECTIONS_PATH'] = f'{{collections}}:{galaxy.ensure_collections()}'
        with self._pool.host('first') as first, self._pool.host('second') as second:
            return self._runner.run(target.directory / 'playbook.yml', inventory(first, second), setting,
                                    target.arguments, environment,
                                    prepare=target.prepare)

    def seconds(self) -> dict[str, dict[str, float]]:
        """Wall seconds of the runs that have ended, by target and setting."""
        taken: dict[str, dict[str, float]] = {}
        for (target, setting), future in self._futures.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                taken.setdefault(target, {})[setting] = future.result().elapsed
        return taken

    def close(self) -> None:
        """Forget what has not begun; runs in progress end with their hosts, which the pool removes."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._pool.close()
        self._executor.shutdown(wait=True)


def _kept_path(target: Target) -> pathlib.Path | None:
    directory = os.environ.get('RIG_CORE_RESULTS')
    if not directory:
        return None
    decided = sys.executable, importlib.metadata.version('ansible-core'), CORE
    digest = hashlib.sha256(repr(decided).encode())
    rig = [path for path in pathlib.Path(__file__).parent.glob('*.*') if path.name != 'results.py']
    for path in sorted([*target.directory.rglob('*'), *rig]):
        # Python keeps byte code beside plugins of a target; its times differ.
        if path.is_file() and path.suffix != '.pyc':
            digest.update(f'{path}\0{path.stat().st_mode}\0'.encode() + path.read_bytes())
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    return pathlib.Path(directory) / f'{target.name}-{digest.hexdigest()[:16]}.json'
