# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Session fixtures: container hosts, the playbook runner, and the background runs of the playbook targets.

Everything is closed by the fixtures' ends, also after Ctrl-C and SIGTERM; containers of a killed session are
removed by the next one.
"""
from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rig import debian
from rig.errors import RigUnavailable
from rig.hosts import Host, HostPool
from rig.playbook import PlaybookRun, Runner
from rig.targets import TargetRuns, inventory

TARGETS = pathlib.Path(__file__).with_name('targets')


@pytest.fixture(scope='session')
def host_pool() -> Iterator[HostPool]:
    """Starts containers; skips, with the reason, where there can be none."""
    try:
        debian.ensure_commands('podman', 'runc', 'debootstrap', 'ssh', 'sshpass', 'gcc')
        pool = HostPool().__enter__()
    except RigUnavailable as reason:
        pytest.skip(f'no container hosts: {reason}')
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture(scope='session')
def runner(host_pool: HostPool) -> Iterator[Runner]:
    """Runs playbooks against hosts of `host_pool`."""
    runner = Runner(host_pool.private_key, host_pool.known_hosts)
    try:
        yield runner
    finally:
        runner.close()


@pytest.fixture
def root_host(host_pool: HostPool) -> Iterator[Host]:
    """A pristine host for one test."""
    with host_pool.host() as host:
        yield host


@pytest.fixture
def play(runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> Callable[..., PlaybookRun]:
    """Runs a playbook given as text on `root_host` (inventory names as in `rig.targets.inventory`)."""
    def run(text: str, setting: Any, **keywords: Any) -> PlaybookRun:
        path = tmp_path / 'playbook.yml'
        path.write_text(text)
        return runner.run(path, inventory(root_host, root_host), setting, **keywords)
    return run


@pytest.fixture(scope='session')
def target_runs(request: pytest.FixtureRequest, host_pool: HostPool, runner: Runner) -> Iterator[TargetRuns]:
    """The runs of all selected targets, started together in the background, so that a machine's cores are used."""
    runs = TargetRuns(host_pool, runner)
    try:
        for item in request.session.items:
            callspec = getattr(item, 'callspec', None)
            if callspec is not None and 'target' in callspec.params and not item.get_closest_marker('skip'):
                runs.submit(callspec.params['target'], getattr(item.function, 'settings_needed', ()))  # type: ignore[attr-defined]
        yield runs
    finally:
        request.config.stash[SECONDS] = runs.seconds()
        runs.close()


SECONDS = pytest.StashKey[dict[str, dict[str, float]]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """How long each target took on either side."""
    taken = config.stash.get(SECONDS, {})
    if taken:
        terminalreporter.section('seconds per target')
        for target, sides in sorted(taken.items()):
            terminalreporter.line(f'{target:20}' + ''.join(f' {name} {s:6.1f}' for name, s in sorted(sides.items())))
