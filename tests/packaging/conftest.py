# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Artifacts and environments that several packaging tests use, built once per session, and plays for ansible-runner."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from environments import Environment, find_interpreter, make_artifact, make_wheel

AWX_PYTHON = "3.13"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The project's wheel."""
    return make_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The tarball for ansible-galaxy."""
    return make_artifact(tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="session")
def awx(artifact: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What a node of AWX has: ansible-core, runner and builder, the collection and its Python requirements."""
    interpreter = find_interpreter(AWX_PYTHON)
    if interpreter is None:
        pytest.skip(f"no Python {AWX_PYTHON} on this machine")
    tools = ["ansible-core==2.21.5", "ansible-runner", "ansible-builder", "setuptools"]
    made = Environment(tmp_path_factory.mktemp("awx") / "venv", interpreter, tools)
    made.install_artifact(artifact)
    return made
