# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""ansible-runner with our strategy: a whole run, and slices of an inventory sent to other nodes, as AWX does."""

from __future__ import annotations

import pathlib

import pytest
from environments import Environment
from runner_jobs import HOSTS, finish, hosts_of_events, make_project, module_runs, path_of, start_pipeline


@pytest.fixture
def variables(awx: Environment) -> dict[str, str]:
    """What a job has to be told on a node that has the collection in a place of its own."""
    return {"ANSIBLE_COLLECTIONS_PATH": str(awx.collections)}


def test_runner_runs_a_play_with_our_strategy(
    awx: Environment, variables: dict[str, str], tmp_path: pathlib.Path
) -> None:
    project = make_project(tmp_path / "private", HOSTS, variables)
    told = awx.ansible("ansible-runner", "run", str(project), "-p", "play.yml", PATH=path_of(awx))
    assert told.count("ok=2") == len(HOSTS)
    assert hosts_of_events(project) == sorted(HOSTS * 2)
    assert module_runs(project) == {"zygote": {"zygote": 2 * len(HOSTS)}, "cold": {}, "core": {}}


def test_two_slices_of_an_inventory_run_on_two_nodes_at_once_and_cover_it(
    awx: Environment, variables: dict[str, str], tmp_path: pathlib.Path
) -> None:
    slices = [HOSTS[0::2], HOSTS[1::2]]  # AWX gives slice n of m each m-th host
    pipelines = []
    for number, hosts in enumerate(slices):
        project = make_project(tmp_path / f"private{number}", hosts, variables)
        worker = f"{awx.program('ansible-runner')} worker --private-data-dir {tmp_path / f'worker{number}'}"
        (tmp_path / f"worker{number}").mkdir()
        pipelines.append(start_pipeline(project, worker, tmp_path / f"received{number}", awx))
    told = [finish(pipeline) for pipeline in pipelines]
    for number, hosts in enumerate(slices):
        assert told[number].count("ok=2") == len(hosts)
        assert hosts_of_events(tmp_path / f"received{number}") == sorted(hosts * 2)
        # the statistics' path is one the worker can write as well: both are on this machine
        assert module_runs(tmp_path / f"private{number}") == {"zygote": {"zygote": 4}, "cold": {}, "core": {}}
