# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Each playbook target under a strategy of core's and under ours: both pass, and their results are equal.

The runs of all selected targets are made in the background by the `target_runs` fixture; a test waits for its own.
"""
from __future__ import annotations

import fnmatch
import pathlib

import pytest
from rig.playbook import CORE, OURS, STRATEGY, Setting
from rig.targets import Target, TargetRuns, load_all

from ansible_mitogen_svc.comparison.results import compare

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


def marks(target: Target) -> list[pytest.MarkDecorator]:
    found = [pytest.mark.long] if target.long else []
    if target.lockstep and STRATEGY in ('free', 'host_pinned'):
        found.append(pytest.mark.skip(reason=f'under {STRATEGY}, {target.lockstep}'))
    return found


every_target = pytest.mark.parametrize('target', [
    pytest.param(target, id=target.name, marks=marks(target))
    for target in load_all(pathlib.Path(__file__).with_name('targets'))])


def needs(*settings: Setting):  # type: ignore[no-untyped-def]
    """Tells the fixture which runs a test will wait for."""
    def mark(function):  # type: ignore[no-untyped-def]
        function.settings_needed = settings
        return function
    return mark


@every_target
@needs(CORE)
def test_the_playbook_passes_under_core(target: Target, target_runs: TargetRuns) -> None:
    run = target_runs.result(target, CORE)
    assert run.returncode == target.returncode, run.tail()


@every_target
@needs(OURS)
def test_the_playbook_passes_under_ours(target: Target, target_runs: TargetRuns) -> None:
    run = target_runs.result(target, OURS)
    assert run.returncode == target.returncode, run.tail()


@every_target
@needs(OURS)
def test_modules_run_in_the_zygote(target: Target, target_runs: TargetRuns) -> None:
    """Fallbacks are those that the target names, with the reason, and no others."""
    runs = target_runs.result(target, OURS).statistics['module_runs']
    unexpected = [reason for reason in (*runs['cold'], *runs['core'])
                  if not any(fnmatch.fnmatchcase(reason, pattern) for pattern in target.cold)]
    assert not unexpected, runs


@every_target
@needs(CORE, OURS)
def test_both_strategies_give_the_same_results(target: Target, target_runs: TargetRuns) -> None:
    core, ours = target_runs.result(target, CORE), target_runs.result(target, OURS)
    differences = compare(core.results, ours.results, target.volatile)
    shown = '\n'.join(map(str, differences[:30]))
    assert not differences, f'{len(differences)} fields differ\n{shown}'
