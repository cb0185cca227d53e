# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Connection plugins whose programs are not on every machine: a program of the same name stands in for each.

It notes its arguments, then runs on this machine the command it was given. Under core and under ours the plugin has to
start it with the same arguments before the command; ours starts it once.
"""
from __future__ import annotations

import json
import os
import pathlib
import stat

import pytest
from rig.errors import RigUnavailable
from rig.galaxy import ensure_collections
from rig.playbook import CORE, OURS, REPOSITORY, PlaybookRun, Runner, Setting

from ansible_mitogen_svc.comparison.results import compare

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

STAND_IN = """#!/usr/bin/python3
import json, os, sys
argv = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
if argv[0] == "jls":
    print("cell ioc-uuid-of-tank")
elif argv[0] == "iocage":
    print("uuid-of-" + argv[-1])
elif argv[0] == "virsh" and "dominfo" in argv:
    pass
else:
    places = [n for n, word in enumerate(argv) if n and word.startswith("/bin/sh")]
    shell = places[0] if places else argv.index("--") + 1
    with open(os.environ["RIG_ARGUMENTS"], "a") as log:
        log.write(json.dumps(argv[:shell]) + "\\n")
    if "--kubeconfig" in argv:
        json.load(open(argv[argv.index("--kubeconfig") + 1]))
    command = argv[shell:]
    command = ["/bin/sh", "-c", command[0]] if len(command) == 1 else command
    os.execvp(command[0], command)
"""
KUBERNETES = {'ansible_kubectl_namespace': 'lab', 'ansible_kubectl_token': 'kube-secret',
              'ansible_kubectl_extra_args': '--request-timeout=9'}
HOSTS: dict[str, dict[str, object]] = {
    'kubectl': {'ansible_connection': 'kubernetes.core.kubectl', 'ansible_host': 'pod', **KUBERNETES},
    'kubeconfig': {'ansible_connection': 'kubectl', 'ansible_host': 'pod',
                   'ansible_kubectl_kubeconfig': {'apiVersion': 'v1', 'kind': 'Config'}},
    'oc': {'ansible_connection': 'community.okd.oc', 'ansible_host': 'pod', 'ansible_oc_container': 'main'},
    'lxc': {'ansible_connection': 'community.general.lxd', 'ansible_host': 'box.example', 'ansible_lxd_project': 'p'},
    'incus': {'ansible_connection': 'community.general.incus', 'ansible_host': 'box', 'ansible_incus_remote': 'far'},
    'jexec': {'ansible_connection': 'community.general.jail', 'ansible_host': 'cell', 'ansible_user': 'root'},
    'iocage': {'ansible_connection': 'community.general.iocage', 'ansible_host': 'tank', 'ansible_user': 'root'},
    'virsh': {'ansible_connection': 'community.libvirt.libvirt_lxc', 'ansible_host': 'domain'},
    'nsenter': {'ansible_connection': 'community.docker.nsenter', 'ansible_nsenter_pid': 7},
    'machinectl': {'ansible_connection': 'machine', 'ansible_host': 'crate'},
    'buildah': {'ansible_connection': 'containers.podman.buildah', 'ansible_host': 'work',
                'ansible_buildah_working_directory': '/tmp'},
}
PROGRAMS = ('kubectl', 'oc', 'lxc', 'incus', 'jexec', 'jls', 'iocage', 'virsh', 'nsenter', 'buildah', 'machinectl')
#: A plugin of somebody else's, as a play may have it beside it.
PLUGIN = """
import subprocess
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = "{name: machine, short_description: machinectl shell, author: the rig, options: {}}"


class Connection(ConnectionBase):
    transport = "machine"
    has_pipelining = True

    def _connect(self):
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        argv = ["machinectl", "-q", "shell", self._play_context.remote_addr, "/bin/sh", "-c", cmd]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        stdout, stderr = process.communicate(in_data)
        return process.returncode, stdout, stderr

    def put_file(self, in_path, out_path):
        raise NotImplementedError

    def fetch_file(self, in_path, out_path):
        raise NotImplementedError

    def close(self):
        pass
"""
#: Stands in for liblxc's Python binding.
BINDING = """
import json, os, subprocess, sys

LXC_ATTACH_CLEAR_ENV = 1
attach_run_command = "run"


class Container:
    state = "RUNNING"

    def __init__(self, name, place="/var/lib/lxc"):
        self.name, self._place = name, place

    def get_config_path(self):
        return self._place

    def attach(self, function, argv, env_policy=0, stdin=0, stdout=1, stderr=2):
        with open(os.environ["RIG_ARGUMENTS"], "a") as log:
            log.write(json.dumps(["attach", self.name, self._place, function, env_policy]) + "\\n")
        for descriptor in (stdin, stdout, stderr):
            os.set_blocking(descriptor, True)
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr).pid

    def attach_wait(self, *arguments, **more):
        return os.waitpid(self.attach(*arguments, **more), 0)[1]
"""
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - {name: ping, ping: null}
    - {name: command, command: id -un, register: who}
    - {name: words, shell: "cat; echo $WORD", args: {stdin: "from {{ inventory_hostname }}"}, environment: {WORD: w}}
    - {name: again, ping: null}
"""


def run_with(runner: Runner, tmp_path: pathlib.Path, setting: Setting,
             hosts: dict[str, dict[str, object]]) -> tuple[PlaybookRun, list[list[str]]]:
    try:
        collections = ensure_collections()
    except RigUnavailable as reason:
        pytest.skip(str(reason))
    programs = tmp_path / 'bin'
    programs.mkdir(exist_ok=True)
    for name in PROGRAMS:
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(stat.S_IRWXU)
    (tmp_path / 'plugins').mkdir(exist_ok=True)
    (tmp_path / 'plugins/machine.py').write_text(PLUGIN)
    (tmp_path / 'binding').mkdir(exist_ok=True)
    (tmp_path / 'binding/lxc.py').write_text(BINDING)
    playbook = tmp_path / 'playbook.yml'
    playbook.write_text(PLAYBOOK)
    log = tmp_path / setting.name
    run = runner.run(playbook, hosts, setting, environment={
        'PATH': f'{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        'PYTHONPATH': f'{REPOSITORY}:{tmp_path}/binding', 'ANSIBLE_CONNECTION_PLUGINS': f'{tmp_path}/plugins',
        'ANSIBLE_MITOGEN_SVC_LOCAL_COMMAND_PLUGINS': 'ansible.legacy.machine', 'RIG_ARGUMENTS': str(log),
        'ANSIBLE_COLLECTIONS_PATH': f'{{collections}}:{collections}'})
    return run, [json.loads(line) for line in log.read_text().splitlines()]


def stable(argv: list[str]) -> tuple[str, ...]:
    """Without the name of a temporary file, such as that of a kubeconfig given as a dictionary."""
    return tuple('<temporary>' if argument.startswith('/tmp/') and '/tmp' in argument[4:] else argument
                 for argument in argv)


@pytest.mark.skipif(os.geteuid() != 0, reason='the jail plugin insists on root')
def test_a_plugin_starts_its_program_for_ours_as_for_core_but_only_once(
        runner: Runner, tmp_path: pathlib.Path) -> None:
    core, core_argv = run_with(runner, tmp_path, CORE, HOSTS)
    ours, our_argv = run_with(runner, tmp_path, OURS, HOSTS)
    assert ours.returncode == 0, ours.tail()
    assert core.returncode == 0, core.tail()
    differences = compare(core.results, ours.results)
    assert not differences, '\n'.join(map(str, differences[:20]))
    assert {stable(argv) for argv in our_argv} <= {stable(argv) for argv in core_argv}
    assert len(our_argv) == len(HOSTS), our_argv
    assert ours.statistics['module_runs']['core'] == ours.statistics['module_runs']['cold'] == {}
    assert not ours.leftovers, 'temporary files of the plugins'


def test_a_plugin_that_attaches_by_a_binding_has_a_program_started_that_attaches_the_same_way(
        runner: Runner, tmp_path: pathlib.Path) -> None:
    # not under core: with pipelining the plugin of community.general 13 never closes the command's input
    host: dict[str, object] = {'ansible_connection': 'community.general.lxc', 'ansible_host': 'box'}
    run, argv = run_with(runner, tmp_path, OURS, {'attach': host})
    assert run.returncode == 0, run.tail()
    assert argv == [['attach', 'box', '/var/lib/lxc', 'run', 1]]
    assert run.statistics['module_runs']['core'] == run.statistics['module_runs']['cold'] == {}
