# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Jobs for ansible-runner with our strategy, and ``transmit | worker | process``. Used in the pytest process."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
from typing import Any

import yaml
from environments import Environment

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
    - ansible.builtin.command: echo {{ inventory_hostname }}
"""
LOCAL = "ansible_connection=local ansible_python_interpreter=/usr/bin/python3"
HOSTS = ("one", "two", "three", "four")
STATISTICS = "statistics.json"


def make_project(place: pathlib.Path, hosts: tuple[str, ...], variables: dict[str, str]) -> pathlib.Path:
    """ansible-runner's private data directory: a play, hosts, our strategy."""
    for name in ("project", "inventory", "env"):
        (place / name).mkdir(parents=True)
    (place / "project/play.yml").write_text(PLAY)
    (place / "inventory/hosts").write_text("".join(f"{host} {LOCAL}\n" for host in hosts))
    ours = {
        "ANSIBLE_STRATEGY": "ansible_mitogen.svc.linear",
        "ANSIBLE_MITOGEN_SVC_STATS": str(place / STATISTICS),
        "NO_COLOR": "1",
    }
    (place / "env/envvars").write_text(yaml.safe_dump({**ours, **variables}))
    return place


def start_pipeline(project: pathlib.Path, worker: str, received: pathlib.Path, awx: Environment) -> Any:
    """``transmit | worker | process``: the job of ``project`` runs where ``worker`` is, its events arrive here."""
    received.mkdir()
    runner = shlex.quote(awx.program("ansible-runner"))
    pipeline = f"{runner} transmit {project} -p play.yml | {worker} | {runner} process {received}"
    return subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", pipeline],
        env={**os.environ, "PATH": path_of(awx)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(pipeline: Any) -> str:
    """Wait for its end; returns what ``process`` printed, which is what ansible-playbook printed."""
    told, _ = pipeline.communicate(timeout=600)
    assert pipeline.returncode == 0, told
    return str(told)


def hosts_of_events(received: pathlib.Path) -> list[str]:
    """Hosts that a task ended well on, one entry per task, by the events that ``process`` wrote."""
    events = [json.loads(path.read_text()) for path in received.glob("artifacts/**/job_events/*.json")]
    return sorted(event["event_data"]["host"] for event in events if event["event"] == "runner_on_ok")


def module_runs(project: pathlib.Path) -> Any:
    return json.loads((project / STATISTICS).read_text())["module_runs"]


def path_of(awx: Environment) -> str:
    return f"{awx.directory / 'bin'}:{os.environ['PATH']}"
