# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The playbook targets of ``tests/integration/targets``: what they declare, and their runs in the background.

A target is a directory with ``playbook.yml`` and, where needed, ``target.yml``:

``arguments``    further ansible-playbook arguments
``environment``  further environment variables
``returncode``   what ansible-playbook has to end with (0)
``long``         true: only with ``-m long``
``volatile``     list of {field, reason, task}: fields that may differ, see `rig.results.Tolerance`
``cold``         {reason in the statistics: why modules of this target cannot run in the zygote}

`TargetRuns` belongs to a session fixture; its pool threads start two fresh hosts per run, so every run begins in the
same state, and drop them after it.
"""
from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from rig.hosts import Host, HostPool
from rig.playbook import PlaybookRun, Runner, Setting
from rig.results import Tolerance


@dataclasses.dataclass(frozen=True)
class Target:
    """One directory below ``targets``, see the module's text for the fields."""

    directory: pathlib.Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    returncode: int = 0
    long: bool = False
    volatile: tuple[Tolerance, ...] = ()
    cold: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        return {'ansible_host': host.address, 'ansible_port': host.port, 'ansible_user': user}
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
        return self._futures[target.name, setting.name].result()

    def _run(self, target: Target, setting: Setting) -> PlaybookRun:
        with self._pool.host('first') as first, self._pool.host('second') as second:
            return self._runner.run(target.directory / 'playbook.yml', inventory(first, second), setting,
                                    target.arguments, target.environment)

    def close(self) -> None:
        """Forget what has not begun; runs in progress end with their hosts, which the pool removes."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._pool.close()
        self._executor.shutdown(wait=True)
