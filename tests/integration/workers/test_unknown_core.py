# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""An ansible-core newer than those we know: used when it has what we need, else left alone, with one warning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from ansible.release import __version__ as core_version
from rig.errors import RigUnavailable
from rig.loopback_sshd import LoopbackSshd

from ansible_mitogen_svc.controller.compat.probe import RAW, parse_version
from tests.integration.workers.conftest import OURS, Lab, forced

pytestmark = pytest.mark.timeout(120)
PLAY = (
    "- hosts: many\n  gather_facts: false\n  tasks:\n    - {name: first, command: echo}\n"
    "- hosts: many\n  gather_facts: false\n  tasks:\n    - {name: second, debug: {msg: 1}}\n"
)


no_newer_core = pytest.mark.skipif(
    parse_version(core_version) in RAW,
    reason=f"{core_version} cannot pass for a newer core: results of tasks have been other objects since 2.21",
)


@no_newer_core
def test_a_newer_core_with_the_names_we_use_is_used(lab: Lab) -> None:
    run = lab.run(lab.write(PLAY), OURS + "linear", hosts=2, TEST_CORE_VERSION="2.99.0")
    assert run.returncode == 0 and "does not know" not in run.output
    assert forced or set(run.tasks) == {"thread", "inline"}


def test_a_newer_core_without_them_runs_as_if_we_were_not_there(lab: Lab) -> None:
    run = lab.run(
        lab.write(PLAY),
        OURS + "linear",
        hosts=2,
        TEST_CORE_VERSION="2.99.0",
        TEST_CORE_LACKS="yes",
    )
    assert run.returncode == 0, run.output
    assert run.output.count("does not know ansible-core 2.99.0") == 1
    assert set(run.results("first")) == set(run.results("second")) == {"h01", "h02"}
    assert not run.statistics


def test_a_newer_core_without_a_name_that_our_own_import_needs_is_left_alone_with_one_warning(lab: Lab) -> None:
    run = lab.run(
        lab.write(PLAY),
        OURS + "linear",
        hosts=2,
        TEST_CORE_VERSION="2.99.0",
        TEST_CORE_RENAMED="DeferredWarningContext",
    )
    assert run.returncode == 0, run.output
    assert run.output.count("does not know ansible-core 2.99.0") == 1 and "DeferredWarningContext" in run.output
    assert "Traceback" not in run.output
    assert set(run.results("first")) == set(run.results("second")) == {"h01", "h02"}
    assert not run.statistics


@no_newer_core
def test_a_newer_core_with_other_names_around_templates_is_used_without_the_memory_of_their_code(lab: Lab) -> None:
    run = lab.run(
        lab.write(PLAY),
        OURS + "linear",
        hosts=2,
        TEST_CORE_VERSION="2.99.0",
        TEST_CORE_RENAMED="AnsibleLexer",
    )
    assert run.returncode == 0 and "does not know" not in run.output and "Traceback" not in run.output, run.output
    assert forced or set(run.tasks) == {"thread", "inline"}


def test_a_core_that_fails_while_we_prepare_it_is_left_alone_with_one_warning(lab: Lab) -> None:
    run = lab.run(lab.write(PLAY), OURS + "linear", hosts=2, TEST_CORE_RENAMED="get_with_context")
    assert run.returncode == 0, run.output
    assert run.output.count(f"does not know ansible-core {core_version}") == 1
    assert "Traceback" not in run.output
    assert set(run.results("first")) == set(run.results("second")) == {"h01", "h02"}
    assert not run.statistics


def test_doctor_says_that_such_a_core_is_not_understood(lab: Lab) -> None:
    renamed = {"TEST_CORE_VERSION": "2.99.0", "TEST_CORE_RENAMED": "DeferredWarningContext"}
    command = [sys.executable, "-m", "ansible_mitogen_svc.command", "doctor"]
    environment = lab.environment("linear", **renamed)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=lab.directory)
    assert "failed  ansible_mitogen.svc does not know ansible-core 2.99.0" in done.stdout and not done.stderr
    assert done.returncode == 1


@pytest.fixture
def sshd() -> Iterator[LoopbackSshd]:
    """An sshd on 127.0.0.1."""
    try:
        with LoopbackSshd() as server:
            yield server
    except RigUnavailable as reason:
        pytest.skip(f"no sshd on loopback: {reason}")


@pytest.mark.parametrize("lacking", [False, True], ids=["as it is", "without a name we use"])
def test_another_ssh_plugin_means_connections_of_core_and_one_warning(
    lacking: bool, lab: Lab, sshd: LoopbackSshd
) -> None:
    variables = {**sshd.inventory_variables(), "ansible_connection": "ssh", "ansible_host": "127.0.0.1"}
    lacks = {"TEST_SSH_LACKS": "yes"} if lacking else {}
    run = lab.run(lab.write(PLAY), OURS + "linear", hosts=2, variables=variables, **lacks)
    assert run.returncode == 0, run.output
    assert set(run.results("first")) == set(run.results("second")) == {"h01", "h02"}
    assert run.output.count("ssh connection plugin lacks ansible.plugins.connection.ssh._ssh_retry") == int(lacking)
    assert "Traceback" not in run.output
    assert run.statistics["connections"].get("opened", 0) == int(not lacking)
    assert set(run.tasks) == ({"fork"} if lacking or forced else {"thread", "inline"})
