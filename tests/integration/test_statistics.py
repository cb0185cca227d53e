# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What the statistics file must show on a real host: nothing shipped twice, one round trip a task, jobs in parallel."""
from __future__ import annotations

import dataclasses
import datetime
import pathlib
from typing import Any

import pytest
from rig.hosts import Host
from rig.playbook import OURS, PlaybookRun, Runner
from rig.targets import inventory

pytestmark = [pytest.mark.containers, pytest.mark.timeout(180)]

MIXED = """
- hosts: alpha, beta
  gather_facts: true
  tasks:
    - {name: ping, ping: }
    - {name: command, command: id}
    - {name: copy, copy: {content: "x", dest: "/tmp/mixed-{{ inventory_hostname }}"}}
    - {name: line, lineinfile: {path: "/tmp/mixed-{{ inventory_hostname }}", line: y}}
    - {name: as root, stat: {path: /root}, become: true}
    - {name: as another, command: id -un, become: true, become_user: app}
"""
PINGS = """
- hosts: alpha
  gather_facts: false
  tasks:
    - {name: ping, ping: , loop: [1]}
    - {name: ping 2, ping: }
    - {name: ping 3, ping: }
    - {name: ping 4, ping: }
    - {name: ping 5, ping: }
    - {name: ping 6, ping: }
    - {name: ping 7, ping: }
"""
SLEEPERS = """
- hosts: alpha
  gather_facts: false
  tasks:
    - {name: connect, ping: }
- hosts: many
  gather_facts: false
  tasks:
    - {name: sleep, command: sleep 1, delegate_to: alpha}
"""


def play(runner: Runner, host: Host, tmp_path: pathlib.Path, text: str, hosts: dict[str, Any] | None = None,
         **keywords: Any) -> PlaybookRun:
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(text)
    run = runner.run(playbook, hosts or inventory(host, host), OURS, **keywords)
    assert run.returncode == 0, run.tail()
    assert run.statistics, 'no statistics file'
    return run


def code_bytes(run: PlaybookRun) -> dict[str, int]:
    return {name: count for name, count in run.statistics['module_cache'].items() if name.startswith('bytes')}


def test_the_second_run_of_a_playbook_ships_no_code(runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    first = play(runner, root_host, tmp_path, MIXED)
    second = play(runner, root_host, tmp_path, MIXED)
    assert sum(code_bytes(first).values()) > 100_000
    assert sum(code_bytes(second).values()) == 0, second.statistics['module_cache']
    assert second.statistics['module_runs']['cold'] == {}
    assert second.statistics['module_runs']['core'] == {}


def test_one_playbook_ships_each_file_once_per_identity(runner: Runner, root_host: Host,
                                                        tmp_path: pathlib.Path) -> None:
    once = play(runner, root_host, tmp_path, PINGS)
    shipped = code_bytes(once)['bytes_module_utils'] + code_bytes(once)['bytes_module']
    # core's base set is 56 to 62 files, about 120 kB compressed and 0.8 MB as it is
    assert shipped < 1_000_000, once.statistics['module_cache']


def test_a_warm_ping_costs_one_round_trip(runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    run = play(runner, root_host, tmp_path, PINGS)
    trips = run.statistics['round_trips_per_task']
    assert trips['tasks'] == 7
    assert trips['median'] == 1, trips
    assert run.statistics['connections']['opened'] == 1


def test_worker_processes_know_what_the_ones_before_them_learned(runner: Runner, root_host: Host,
                                                                 tmp_path: pathlib.Path) -> None:
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(PINGS)
    forked = dataclasses.replace(OURS, environment={'ANSIBLE_MITOGEN_SVC_TASK_WORKERS': 'fork'})
    run = runner.run(playbook, inventory(root_host, root_host), forked)
    assert list(run.statistics['tasks']) == ['fork'], run.tail()
    shipped = code_bytes(run)
    assert shipped['bytes_module_utils'] + shipped['bytes_module'] < 1_000_000
    assert run.statistics['round_trips_per_task']['median'] == 1, run.statistics['round_trips_per_task']
    assert run.statistics['connections']['opened'] == 1


def test_twenty_sleeps_delegated_to_one_host_run_side_by_side(runner: Runner, root_host: Host,
                                                              tmp_path: pathlib.Path) -> None:
    hosts = inventory(root_host, root_host)
    alpha = hosts['alpha']
    hosts = {'alpha': alpha, **{f'many{number:02}': dict(alpha) for number in range(20)}}
    text = SLEEPERS.replace('hosts: many', "hosts: 'many*'")
    run = play(runner, root_host, tmp_path, text, hosts, arguments=['--forks', '20'])
    results = [record['result'] for record in run.of_task('sleep')]
    assert len(results) == 20
    begun = min(clock(result['start']) for result in results)
    ended = max(clock(result['end']) for result in results)
    assert (ended - begun).total_seconds() < 5
    assert run.statistics['connections']['opened'] == 1


def clock(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
