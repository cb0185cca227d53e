# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What files cost that are on the host already: round trips and bytes over a real ssh, by the statistics file."""
from __future__ import annotations

import pathlib
from typing import Any

import ansible.release
import pytest
from rig.hosts import Host
from rig.playbook import OURS, PlaybookRun, Runner
from rig.targets import inventory

pytestmark = [pytest.mark.containers, pytest.mark.timeout(180)]

FILES = """
- hosts: {host}
  gather_facts: false
  become: {become}
  tasks:
    - {{name: connect, ping: }}
    - {{name: copy, copy: {{src: plain.txt, dest: /var/tmp/rt-copy}}}}
    - {{name: copy with mode, copy: {{src: plain.txt, dest: /var/tmp/rt-mode, mode: "0640"}}}}
    - {{name: content, copy: {{content: "some text", dest: /var/tmp/rt-content}}}}
    - {{name: into a directory, copy: {{src: plain.txt, dest: /var/tmp/}}}}
    - {{name: template, template: {{src: words.j2, dest: /var/tmp/rt-template}}}}
    - {{name: template with mode, template: {{src: words.j2, dest: /var/tmp/rt-template2, mode: "0600"}}}}
"""
BECOME = pytest.mark.parametrize('become', [False, True], ids=['as the login user', 'with become'])


@pytest.fixture
def play(runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> Any:
    def run(become: bool) -> PlaybookRun:
        playbook = tmp_path / 'playbook.yml'
        playbook.write_text(FILES.format(host='beta' if become else 'alpha', become=str(become).lower()))
        (tmp_path / 'plain.txt').write_text('a line of text\n' * 1000)
        (tmp_path / 'words.j2').write_text('{{ inventory_hostname }} ' + 'word ' * 1000 + '\n')
        done = runner.run(playbook, inventory(root_host, root_host), OURS)
        assert done.returncode == 0, done.tail()
        return done
    return run


@BECOME
def test_files_that_are_there_cost_one_round_trip_and_no_content(play: Any, become: bool) -> None:
    play(become)
    again = play(become)
    assert [record['result']['changed'] for record in again.results if record['event'] == 'ok'] == [False] * 7
    trips = again.statistics['round_trips_per_task']
    assert trips['tasks'] == 7
    assert trips['median'] == 1, trips
    # The first task may find out which interpreter there is, and starts the identity.
    assert again.statistics['foreseen'] == {'right': 6}, again.statistics
    assert again.statistics['transfer']['bytes'] == 0


@BECOME
def test_a_new_small_file_costs_two_round_trips(play: Any, become: bool) -> None:
    first = play(become)
    assert sum(record['result']['changed'] for record in first.results if record['event'] == 'ok') == 6
    assert first.statistics['round_trips_per_task']['median'] == 2


LOOP = """
- hosts: {host}
  gather_facts: false
  become: {become}
  tasks:
    - {{name: connect, ping: }}
    - {{name: loop, copy: {{src: "{{{{ item }}}}", dest: /var/tmp/rt-loop/, mode: "0640"}}, with_fileglob: "many/*"}}
"""


@BECOME
def test_files_of_a_loop_cost_one_round_trip_each_and_those_that_are_there_few_for_all(
        runner: Runner, root_host: Host, tmp_path: pathlib.Path, become: bool) -> None:
    (tmp_path / 'many').mkdir()
    for number in range(20):
        (tmp_path / 'many' / f'file{number}').write_text(f'{number}\n' * 100)
    root_host.shell('mkdir -m 0777 /var/tmp/rt-loop')
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(LOOP.format(host='beta' if become else 'alpha', become=str(become).lower()))
    sizes = []
    for run in ('new', 'there', 'one is another'):
        if run == 'one is another':
            root_host.shell('echo >/var/tmp/rt-loop/file7; rm -f /var/tmp/rt-loop/file8')
        done = runner.run(playbook, inventory(root_host, root_host), OURS)
        assert done.returncode == 0, done.tail()
        items = done.of_task('loop')[-1]['result']['results']
        assert sum(item['changed'] for item in items) == {'new': 20, 'there': 0, 'one is another': 2}[run]
        foreseen = done.statistics['foreseen']
        assert not foreseen.get('not asked for')
        assert foreseen['right'] >= {'new': 19, 'there': 20, 'one is another': 16}[run], foreseen
        assert done.statistics['round_trips_per_task']['max'] <= 20 + 20 - foreseen['right']
        if run == 'there':
            # Two items by themselves, then eight and ten of them in two questions each.
            assert foreseen['asked ahead'] == 18
            assert done.statistics['round_trips_per_task']['max'] == 6
        sizes.append(done.statistics['transfer']['bytes'])
    assert sizes[1] == 0
    script = 'find /var/tmp/rt-loop -type f -perm 0640 | wc -l; cat /var/tmp/rt-loop/file7 | wc -l'
    assert root_host.shell(script).split() == ['20', '100']


TREE = """
- hosts: {host}
  gather_facts: false
  become: {become}
  tasks:
    - {{name: tree, copy: {{src: tree/, dest: /var/tmp/rt-tree, mode: "0640"}}}}
    - {{name: connect, ping: }}
"""


@BECOME
@pytest.mark.parametrize('count', [60, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_files_of_a_directory_that_are_there_cost_three_round_trips_together(
        runner: Runner, root_host: Host, tmp_path: pathlib.Path, become: bool, count: int) -> None:
    (tmp_path / 'tree' / 'inner').mkdir(parents=True)
    for number in range(count):
        (tmp_path / 'tree' / ('inner' if number % 2 else '') / f'file{number}').write_text(f'{number}\n' * number)
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(TREE.format(host='beta' if become else 'alpha', become=str(become).lower()))
    # core 2.19 runs the file module for each directory below the first as well, whatever files are in it
    more = int(ansible.release.__version__.startswith('2.19.'))
    for changed, trips in ((True, 4 + more), (False, 3 + more)):
        done = runner.run(playbook, inventory(root_host, root_host), OURS)
        assert done.returncode == 0, done.tail()
        assert done.of_task('tree')[0]['result']['changed'] is changed
        assert done.statistics['module_runs']['zygote']['in a batch'] == 2 * (count - 1)
        assert done.statistics['module_runs']['zygote']['zygote'] <= 5
        if not become:
            assert done.statistics['round_trips_per_task']['max'] <= trips, done.statistics
    assert done.statistics['transfer']['bytes'] == 0
    script = 'find /var/tmp/rt-tree -type f -perm 0640 | wc -l; cat /var/tmp/rt-tree/inner/file59 | wc -l'
    listing = root_host.shell(script)
    assert listing.split() == [str(count), '59']


PROGRAMS = """
- hosts: alpha
  gather_facts: false
  tasks:
    - {name: asked for, stat: {path: /etc/passwd}, register: passwd}
    - {name: new, copy: {content: text, dest: /var/tmp/rt-programs}}
    - {name: there, ansible.builtin.copy: {content: text, dest: /var/tmp/rt-programs}}
    - {name: other, copy: {content: other text, dest: /var/tmp/rt-programs}}
    - {name: back, ansible.builtin.fetch: {src: /var/tmp/rt-programs, dest: fetched, flat: true}}
"""


def test_no_programs_are_started_for_what_a_file_action_does_not_look_at(
        runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    for name in ('file', 'lsattr'):
        path = f'/usr/local/bin/{name}'
        root_host.shell(f'printf "#!/bin/sh\\necho {name} \\$* >>/var/tmp/rt-started\\n" >{path}; chmod 755 {path}')
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(PROGRAMS)
    done = runner.run(playbook, inventory(root_host, root_host), OURS)
    assert done.returncode == 0, done.tail()
    changed = [record['result']['changed'] for record in done.results if record['event'] == 'ok']
    assert changed == [False, True, False, True, True]
    started = root_host.shell('cat /var/tmp/rt-started').splitlines()
    assert sorted(line.split()[0] for line in started) == ['file', 'lsattr'], started
    assert all(line.endswith('/etc/passwd') for line in started)
