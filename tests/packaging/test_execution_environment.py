# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The ways of AWX: the execution environment's definition, and ansible-runner with our strategy, whole and sliced."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from environments import Environment, find_interpreter, make_artifact

PYTHON = "3.13"
PLAY = "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.ping:\n"
LOCAL = "ansible_connection=local ansible_python_interpreter=/usr/bin/python3"


@pytest.fixture(scope="module")
def awx(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What an execution environment has: ansible-core, ansible-runner, the collection and its Python requirements."""
    interpreter = find_interpreter(PYTHON)
    if interpreter is None:
        pytest.skip(f"no Python {PYTHON} on this machine")
    root = tmp_path_factory.mktemp("awx")
    requirements = ["ansible-core==2.21.5", "mitogen>=0.3.54", "ansible-runner", "ansible-builder", "setuptools"]
    made = Environment(root / "venv", interpreter, requirements)
    made.install_artifact(make_artifact(root))
    return made


def introspect(awx: Environment) -> dict[str, Any]:
    told = awx.ansible("ansible-builder", "introspect", "--sanitize", str(awx.collections))
    return dict(yaml.safe_load(told))


def test_builder_finds_what_the_collection_needs(awx: Environment) -> None:
    found = introspect(awx)
    assert [line.partition(" ")[0] for line in found["python"]] == ["mitogen>=0.3.54"]
    system = {line.partition(" ")[0] for line in found["system"]}
    assert system == {"openssh-clients", "openssh-client", "sshpass"}


def test_builder_makes_a_containerfile_of_a_definition_with_it(awx: Environment, tmp_path: pathlib.Path) -> None:
    definition = {
        "version": 3,
        "images": {"base_image": {"name": "localhost/base:latest"}},
        "dependencies": {
            "galaxy": {"collections": ["ansible_mitogen.svc"]},
            "ansible_core": {"package_pip": "ansible-core"},
        },
    }
    (tmp_path / "execution-environment.yml").write_text(yaml.safe_dump(definition))
    file = str(tmp_path / "execution-environment.yml")
    awx.ansible("ansible-builder", "create", "--file", file, "--context", str(tmp_path / "context"))
    text = (tmp_path / "context/Containerfile").read_text()
    assert "localhost/base:latest" in text and "introspect" in text


@pytest.fixture
def project(awx: Environment, tmp_path: pathlib.Path) -> pathlib.Path:
    """ansible-runner's private data directory: a play, two hosts, our strategy."""
    for name in ("project", "inventory", "env"):
        (tmp_path / "private" / name).mkdir(parents=True)
    place = tmp_path / "private"
    (place / "project/play.yml").write_text(PLAY)
    (place / "inventory/hosts").write_text(f"one {LOCAL}\ntwo {LOCAL}\n")
    variables = {
        "ANSIBLE_STRATEGY": "ansible_mitogen.svc.linear",
        "ANSIBLE_COLLECTIONS_PATH": str(awx.collections),
        "ANSIBLE_MITOGEN_SVC_STATS": str(tmp_path / "statistics.json"),
        "NO_COLOR": "1",
    }
    (place / "env/envvars").write_text(yaml.safe_dump(variables))
    return place


def module_runs(project: pathlib.Path) -> Any:
    return json.loads((project.parent / "statistics.json").read_text())["module_runs"]


def test_runner_runs_a_play_with_our_strategy(awx: Environment, project: pathlib.Path) -> None:
    told = awx.ansible("ansible-runner", "run", str(project), "-p", "play.yml", PATH=path_of(awx))
    assert told.count("ok=1") == 2
    assert module_runs(project) == {"zygote": {"zygote": 2}, "cold": {}, "core": {}}


def test_runner_runs_a_slice_of_the_inventory_on_another_node(awx: Environment, project: pathlib.Path) -> None:
    """``transmit | worker | process``, as receptor connects them."""
    runner, worker, received = awx.program("ansible-runner"), project.parent / "worker", project.parent / "received"
    worker.mkdir()
    received.mkdir()
    pipeline = (
        f"{runner} transmit {project} -p play.yml --limit two"
        f" | {runner} worker --private-data-dir {worker} | {runner} process {received}"
    )
    environment = {**os.environ, "PATH": path_of(awx)}
    done = subprocess.run(["sh", "-c", pipeline], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two" in done.stdout and "ok=1" in done.stdout and "one " not in done.stdout
    assert module_runs(project) == {"zygote": {"zygote": 1}, "cold": {}, "core": {}}


def path_of(awx: Environment) -> str:
    return f"{awx.directory / 'bin'}:{os.environ['PATH']}"
