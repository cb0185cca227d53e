# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Where core's own module_utils cannot be imported on the host, the failure is core's, in core's words."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest

from tests.integration.workers.conftest import OURS, Lab

pytestmark = pytest.mark.timeout(120)
VERSIONS = pathlib.Path.home() / ".pyenv" / "versions"
PLAY = """
- hosts: many
  gather_facts: false
  tasks:
    - {name: a module, ping: null, ignore_errors: true, vars: &old {ansible_python_interpreter: %s}}
    - {name: a file, copy: {content: x, dest: %s/file}, ignore_errors: true, vars: *old}
    - {name: another module, command: echo, ignore_errors: true, vars: *old}
    - {name: the right one, command: echo}
"""
#: Core's words hold the place of the payload, or of a file of a task.
PLACES = re.compile(r"/[^ \"']*(ansiballz|\.ansible/tmp|ansible-tmp|payload)[^ \"']*|<stdin>")


def told(result: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in result.items() if name not in ("start", "end", "delta", "invocation")}
    return {name: PLACES.sub("PLACE", value) if isinstance(value, str) else value for name, value in kept.items()}


def test_a_python_that_core_does_not_support_any_more_is_refused_in_core_s_words(lab: Lab) -> None:
    python = next(iter(sorted(VERSIONS.glob("3.8.*/bin/python"))), None)
    if python is None:
        pytest.skip("there is no Python 3.8 here")
    playbook = lab.write(PLAY % (python, lab.directory))
    core = lab.run(playbook, "linear", hosts=1)
    (lab.directory / "file").unlink(missing_ok=True)  # a core that supports this Python has written it
    ours = lab.run(playbook, OURS + "linear", hosts=1)
    for task in ("a module", "a file", "another module", "the right one"):
        expected, found = (
            {host: told(result) for host, result in run.results(task).items()} for run in (core, ours)
        )
        assert expected and found == expected
    if "requires Python" not in core.output:
        pytest.skip("this ansible-core supports Python 3.8")
    assert "could not be started" not in ours.output
    assert ours.statistics["module_runs"]["cold"]["module_utils cannot be imported"] >= 3
