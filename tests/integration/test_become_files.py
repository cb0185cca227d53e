# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Files for a become user who may not read the login user's: that user's own process writes them, nobody else."""
from __future__ import annotations

import pathlib
import tarfile
from collections.abc import Callable

import pytest
from rig.hosts import Host
from rig.playbook import CORE, OURS, PlaybookRun, Runner
from rig.targets import inventory

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

PLAY = """
- hosts: {host}
  gather_facts: false
  become: true
  become_user: app
  become_method: {method}
  vars: {{ansible_become_password: "{password}", there: /home/app/there}}
  tasks:
    - {{name: script, script: say.sh one two}}
    - {{name: directory, file: {{path: "{{{{ there }}}}", state: directory}}}}
    - {{name: copy, copy: {{src: plain.txt, dest: "{{{{ there }}}}/plain", mode: "0640"}}}}
    - {{name: copy again, copy: {{src: plain.txt, dest: "{{{{ there }}}}/plain", mode: "0640"}}}}
    - {{name: large, copy: {{src: large, dest: "{{{{ there }}}}/large"}}}}
    - {{name: large again, copy: {{src: large, dest: "{{{{ there }}}}/large"}}}}
    - {{name: loop, copy: {{content: "{{{{ item }}}}", dest: "{{{{ there }}}}/item{{{{ item }}}}"}}, loop: [1, 2, 3]}}
    - {{name: tree, copy: {{src: tree/, dest: "{{{{ there }}}}/tree"}}}}
    - {{name: template, template: {{src: words.j2, dest: "{{{{ there }}}}/template"}}}}
    - {{name: validated, template: {{src: words.j2, dest: "{{{{ there }}}}/valid", validate: grep words %s}}}}
    - {{name: unarchive, unarchive: {{src: tree.tar, dest: "{{{{ there }}}}"}}}}
    - {{name: assemble, assemble: {{src: tree, dest: "{{{{ there }}}}/all", remote_src: false}}}}
    - {{name: old module, old_style: }}
    - {{name: background, command: id -un, async: 20, poll: 1}}
    - {{name: into the login user's way, copy: {{src: plain.txt, dest: /root/plain}}, ignore_errors: true}}
    - {{name: fetch, fetch: {{src: "{{{{ there }}}}/large", dest: fetched, flat: true}}}}
    - {{name: owners, command: find /home/app/there -not -user app}}
    - {{name: sums, shell: "sha1sum large plain template item2 | cut -d' ' -f1", args: {{chdir: "{{{{ there }}}}"}}}}
"""
TRAP = """
for name in setfacl chmod chown chgrp; do
    path=$(command -v $name) && mv $path $path.real || continue
    printf '#!/bin/sh\\nset -- "$0" "$@"\\necho "$*" >>/var/tmp/changed-access\\nexit 1\\n' >$path; chmod.real 755 $path
done
: >/var/tmp/changed-access; chmod.real 666 /var/tmp/changed-access
"""
Play = Callable[..., PlaybookRun]


@pytest.fixture
def play(runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> Play:
    def run(setting: object, host: str, method: str = 'sudo', password: str = '') -> PlaybookRun:
        playbook = tmp_path / 'playbook.yml'
        playbook.write_text(PLAY.format(host=host, method=method, password=password))
        return runner.run(playbook, inventory(root_host, root_host), setting)  # type: ignore[arg-type]
    (tmp_path / 'plain.txt').write_text('plain\n')
    (tmp_path / 'large').write_bytes(bytes(range(256)) * 8192)
    (tmp_path / 'words.j2').write_text('words for {{ inventory_hostname }}\n')
    (tmp_path / 'say.sh').write_text('#!/bin/sh\nid -un; stat -c "%U %a" "$0" "$(dirname "$0")"; echo "$@"\n')
    (tmp_path / 'tree' / 'inner').mkdir(parents=True)
    for number in range(5):
        (tmp_path / 'tree' / 'inner' / f'f{number}').write_text(f'{number}\n')
        (tmp_path / 'tree' / f'g{number}').write_text(f'{number}\n')
    with tarfile.open(tmp_path / 'tree.tar', 'w') as archive:
        archive.add(tmp_path / 'tree', 'archived')
    (tmp_path / 'library').mkdir()
    (tmp_path / 'library' / 'old_style').write_text(
        '#!/bin/sh\nprintf \'{"changed": false, "who": "%s"}\' "$(id -un)"\n')
    return run


@pytest.mark.parametrize(('host', 'method', 'password'), [
    ('beta', 'sudo', ''), ('gamma', 'sudo', 'deploy-secret'), ('beta', 'su', 'app-secret'), ('alpha', 'sudo', '')])
def test_all_of_cores_ways_to_bring_a_file_need_neither_acl_nor_a_mode_that_others_can_read(
        play: Play, root_host: Host, host: str, method: str, password: str) -> None:
    root_host.shell(TRAP)
    done = play(OURS, host, method, password)
    assert done.returncode == 0, done.tail()
    assert root_host.shell('cat /var/tmp/changed-access') == ''
    # Core's async_wrapper looks every five seconds whether its own can go.
    script = 'for i in $(seq 100); do ls -d /var/tmp/ansible-tmp-* >/dev/null 2>&1 || break; sleep 0.1; done'
    assert root_host.shell(f'{script}; ls -d /var/tmp/ansible-tmp-* /tmp/ansible-tmp-* || true') == ''
    results = {record['task']: record for record in done.results if record['event'] in ('ok', 'failed')}
    said = [line for line in results['script']['result']['stdout_lines'] if line]  # su ends its prompt's line
    assert said == ['app', 'app 744', 'app 700', 'one two']
    changed = {name: record['result'].get('changed') for name, record in results.items()}
    assert not changed['copy again'] and not changed['large again']
    assert all(changed[name] for name in ('copy', 'large', 'loop', 'tree', 'template', 'validated', 'unarchive',
                                          'assemble'))
    assert results['copy']['result']['mode'] == '0640' and results['copy']['result']['owner'] == 'app'
    assert results['old module']['result']['who'] == 'app'
    assert results['background']['result']['stdout'] == 'app'
    assert results['into the login user\'s way']['event'] == 'failed'
    assert results['owners']['result']['stdout'] == ''
    assert done.statistics['identities']['started'] == 1


def test_results_are_those_of_core_where_core_can_do_it(
        play: Play, root_host: Host, tmp_path: pathlib.Path) -> None:
    from ansible_mitogen_svc.comparison.results import compare

    core = play(CORE, 'beta')
    assert core.returncode == 0, core.tail()
    root_host.shell('rm -r /home/app/there')
    (tmp_path / 'fetched').unlink()
    ours = play(OURS, 'beta')
    assert ours.returncode == 0, ours.tail()
    differences = [each for each in compare(core.results, ours.results, ()) if 'script' not in str(each)]
    assert not differences, '\n'.join(map(str, differences))


def test_without_acl_core_cannot(play: Play, root_host: Host) -> None:
    """Else the tests above would show nothing."""
    root_host.shell(TRAP)
    assert play(CORE, 'beta').returncode != 0


def test_an_identity_that_cannot_be_had_is_refused_in_cores_words(play: Play, root_host: Host) -> None:
    core, ours = (play(setting, 'gamma', 'sudo', 'wrong') for setting in (CORE, OURS))
    assert core.returncode == ours.returncode
    assert [(record['event'], record['result'].get('msg')) for record in core.results if record['event'] == 'failed'] \
        == [(record['event'], record['result'].get('msg')) for record in ours.results if record['event'] == 'failed']


CHANGES = """
- hosts: beta
  gather_facts: false
  tasks:
    - {name: before, copy: {content: one, dest: /home/app/one}, become: true, become_user: app}
    - {name: another group, user: {name: app, groups: batch, append: true}, become: true}
    - {name: after, copy: {content: two, dest: /home/app/two, group: batch}, become: true, become_user: app}
"""


def test_a_change_of_the_account_between_two_files_is_seen_by_the_second(
        runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(CHANGES)
    done = runner.run(playbook, inventory(root_host, root_host), OURS)
    assert done.returncode == 0, done.tail()
    assert root_host.shell('stat -c "%U %G" /home/app/two').split() == ['app', 'batch']


KEPT = """
- hosts: beta
  gather_facts: false
  become: true
  become_user: app
  vars: {ansible_pipelining: false}
  tasks:
    - {name: module, ping: }
    - {name: script, script: say.sh}
"""
KEPT_FILES = 'stat -c "%U %G %a" /var/tmp/ansible-tmp-* /var/tmp/ansible-tmp-*/*'


def test_files_that_are_kept_on_the_target_are_left_as_core_leaves_them(
        runner: Runner, root_host: Host, tmp_path: pathlib.Path) -> None:
    root_host.shell('groupadd shared; usermod -aG shared ops; usermod -aG shared app; chmod a-x $(command -v setfacl)')
    (tmp_path / 'playbook.yml').write_text(KEPT)
    (tmp_path / 'say.sh').write_text('#!/bin/sh\nid -un\n')
    kept = {'ANSIBLE_KEEP_REMOTE_FILES': 'true', 'ANSIBLE_COMMON_REMOTE_GROUP': 'shared'}
    left = {}
    for setting in (CORE, OURS):
        done = runner.run(tmp_path / 'playbook.yml', inventory(root_host, root_host), setting, environment=kept)
        assert done.returncode == 0, done.tail()
        left[setting.name] = sorted(set(root_host.shell(KEPT_FILES).splitlines()))
        root_host.shell('rm -rf /var/tmp/ansible-tmp-*')
    assert left['core'] == left['svc']
    assert any(line.startswith('ops shared') for line in left['core']), left
