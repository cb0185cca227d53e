# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""ansible-core's own integration targets pass under ours.

A selection: those that need nothing but a host of the rig, and do nothing to this machine.
"""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from rig.core_targets import CoreTargets, ensure_targets
from rig.errors import RigUnavailable
from rig.hosts import HostPool
from rig.playbook import CORE, OURS, STRATEGY, Runner

pytestmark = [
    pytest.mark.containers, pytest.mark.timeout(1900),
    pytest.mark.skipif(STRATEGY != 'linear', reason="core's targets expect linear, or choose a strategy themselves"),
]

#: Targets for a host by ssh; the first ones are quick, and go through as many parts as possible.
BY_SSH = ('async_extra_data', 'become', 'old_style_modules_posix', 'remote_tmp')
BY_SSH_LONG = (
    'add_host', 'assemble', 'async', 'async_fail', 'become_su', 'binary', 'blockinfile', 'command_shell', 'copy',
    'embedded_module', 'environment', 'file', 'find', 'getent', 'group_by', 'include_vars',
    'interpreter_discovery_python', 'known_hosts', 'lineinfile', 'module_utils', 'ping', 'raw', 'replace', 'script',
    'service_facts', 'slurp', 'split', 'stat', 'tempfile', 'user', 'wait_for_connection',
)
#: Targets about the controller; the connection is local.
HERE = ('register', 'task_ordering')
HERE_LONG = (
    'any_errors_fatal', 'assert', 'blocks', 'break_when', 'changed_when', 'check_mode', 'conditionals', 'debugger',
    'error_from_connection', 'failed_when', 'gathering', 'handlers', 'hosts_field', 'ignore_errors',
    'ignore_unreachable', 'include_import', 'includes', 'includes_race', 'keyword_inheritance', 'loop-connection',
    'loop-until', 'loop_control', 'loops', 'meta_tasks', 'module_defaults', 'module_no_log', 'module_precedence',
    'module_tracebacks', 'no_log', 'omit', 'order', 'roles', 'run_modules', 'set_fact', 'set_stats',
    'strategy_linear', 'task-args', 'task-timeout', 'tasks', 'throttle', 'undefined',
    'unexpected_executor_exception', 'until', 'var_precedence', 'want_json_modules_posix',
)


@pytest.fixture(scope='module')
def core_targets(runner: Runner) -> CoreTargets:
    try:
        return CoreTargets(runner, ensure_targets())
    except RigUnavailable as reason:
        pytest.skip(str(reason))


def choose() -> Iterator[object]:
    for names, by_ssh, marks in ((BY_SSH, True, ()), (BY_SSH_LONG, True, (pytest.mark.long,)),
                                 (HERE, False, ()), (HERE_LONG, False, (pytest.mark.long,))):
        for name in names:
            yield pytest.param(name, by_ssh, id=name, marks=marks)


@pytest.mark.parametrize(('name', 'by_ssh'), list(choose()))
def test_a_target_of_cores_own_passes(name: str, by_ssh: bool, core_targets: CoreTargets, host_pool: HostPool) -> None:
    with host_pool.host() as host:
        ours = core_targets.run(name, host if by_ssh else None, OURS)
    if ours.returncode == 0:
        return
    with host_pool.host() as host:
        core = core_targets.run(name, host if by_ssh else None, CORE)
    if core.returncode != 0:
        pytest.skip(f'fails under core on this machine, too: {core.stdout[-300:]}')
    raise AssertionError(f'{name} passes under core, but not under ours:\n{ours.stdout[-8000:]}')
