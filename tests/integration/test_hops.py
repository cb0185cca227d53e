# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Hosts that are reached from another inventory host (``ansible_mitogen_svc_via``), with that host's ssh and keys."""
from __future__ import annotations

from collections.abc import Callable

import pytest
from rig.playbook import OURS, PlaybookRun

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

KEY_OF_THE_HOP = '/root/key-that-only-the-hop-has'
PLAYBOOK = f"""
- hosts: alpha
  gather_facts: false
  tasks:
    - name: keys
      copy:
        src: "{{{{ ansible_ssh_private_key_file }}}}"
        dest: "{{{{ item.path }}}}"
        owner: "{{{{ item.owner }}}}"
        mode: "0600"
      loop: [{{path: {KEY_OF_THE_HOP}, owner: root}}, {{path: /home/ops/key, owner: ops}}]
      no_log: true
    - name: hosts
      add_host:
        name: "{{{{ item.name }}}}"
        groups: beyond
        ansible_mitogen_svc_via: "{{{{ item.via }}}}"
        ansible_user: "{{{{ item.user }}}}"
        ansible_host: "{{{{ ansible_host }}}}"
        ansible_port: 2222
        ansible_ssh_private_key_file: "{{{{ item.key }}}}"
        ansible_ssh_common_args: -F none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no
      loop:
        - {{name: inner, via: alpha, user: ops, key: {KEY_OF_THE_HOP}}}
        - {{name: innermost, via: inner, user: deploy, key: /home/ops/key}}
      no_log: true
- hosts: beyond
  gather_facts: false
  tasks:
    - {{name: who, command: id -un}}
    - {{name: a file, copy: {{content: "{{{{ inventory_hostname }}}}", dest: "/tmp/of-{{{{ inventory_hostname }}}}"}}}}
    - {{name: raw, raw: id -un}}
    - {{name: another user, command: id -un, become: true, become_user: app, when: inventory_hostname == 'inner'}}
    - {{name: reset, meta: reset_connection}}
    - {{name: after a reset, ping: null}}
- hosts: beta
  gather_facts: false
  vars: {{ansible_ssh_common_args: -F none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no}}
  tasks:
    - name: errors
      ping:
      vars:
        ansible_mitogen_svc_via: "{{{{ item.via }}}}"
        ansible_user: "{{{{ item.user | default('ops') }}}}"
        ansible_python_interpreter: "{{{{ item.python | default('/usr/bin/python3') }}}}"
        ansible_ssh_private_key_file: "{{{{ item.key | default('{KEY_OF_THE_HOP}') }}}}"
      ignore_errors: true
      ignore_unreachable: true
      loop:
        - {{name: unknown hop, via: nowhere}}
        - {{name: circle, via: beta}}
        - {{name: no Python, via: alpha, python: /nowhere/python, user: deploy}}
        - {{name: no key, via: alpha, key: /nowhere/key}}
    - name: password
      ping:
      vars: {{ansible_mitogen_svc_via: alpha, ansible_password: ops-secret}}
      ignore_errors: true
      ignore_unreachable: true
"""


def test_a_host_is_reached_from_another_one_and_fails_with_an_explanation(play: Callable[..., PlaybookRun]) -> None:
    run = play(PLAYBOOK, OURS)
    for host, user in (('inner', 'ops'), ('innermost', 'deploy')):
        assert [record['result'].get('stdout') for record in run.of_task('who', host)] == [user], run.tail()
        assert [record['result'].get('stdout') for record in run.of_task('raw', host)] == [f'{user}\n'], run.tail()
        assert [record['event'] for record in run.of_task('a file', host)] == ['ok'], run.tail()
        assert [record['event'] for record in run.of_task('after a reset', host)] == ['ok'], run.tail()
    assert [record['result'].get('stdout') for record in run.of_task('another user', 'inner')] == ['app'], run.tail()
    for told in ("names 'nowhere', which is not a host of the inventory", 'leads in a circle: beta -> beta',
                 'cannot be given a password', 'No Python could be started on', 'Permission denied (publickey'):
        assert told in run.stdout + run.stderr, run.tail()
    assert 'ops-secret' not in run.stdout + run.stderr
