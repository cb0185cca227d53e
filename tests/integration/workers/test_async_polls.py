# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Core's own questions for a task's asynchronous job: a job has as much time under ours as under core."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.workers.conftest import OURS, Lab

pytestmark = pytest.mark.timeout(120)
#: A job that ends as soon as somebody starts a Python to ask for it, who then has to wait for that Python.
PLAY = """
- hosts: many
  gather_facts: false
  vars: {{ansible_python_interpreter: {place}/python}}
  tasks:
    - {{name: before, ping: }}
    - name: job
      shell: "touch {place}/waits; until test -e {place}/asked; do sleep 0.1; done; rm {place}/waits"
      async: 30
      poll: 3
    - {{name: what it took, command: cat {place}/asked}}
"""
INTERPRETER = """#!/bin/sh
if test -e {place}/waits; then echo x >> {place}/asked; sleep 2; fi
exec {python} "$@"
"""


@pytest.mark.parametrize("strategy", ["linear", OURS + "linear"])
def test_a_job_that_ends_while_a_python_would_start_needs_no_further_question(lab: Lab, strategy: str) -> None:
    place = lab.directory / "asked"
    place.mkdir()
    python = place / "python"
    python.write_text(INTERPRETER.format(place=place, python=shutil.which("python3", path="/usr/bin:/bin")))
    python.chmod(0o755)
    run = lab.run(lab.write(PLAY.format(place=place)), strategy, hosts=1, forks=1, timeout=100)
    assert run.results("what it took")["h01"]["stdout"] == "x", run.output[-3000:]
    assert "ASYNC POLL" not in run.output, run.output[-3000:]
