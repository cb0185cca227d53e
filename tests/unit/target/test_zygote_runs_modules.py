# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A module run in a zygote gives what a cold run of core's own text gives."""
from __future__ import annotations

import gzip
import json
import os
import pathlib
import re
import signal
import time
from collections.abc import Callable

import pytest
from zygote_client import Module, ZygoteProcess, run_cold

VOLATILE = re.compile('date_time|uptime|memfree|memory_mb|swapfree|loadavg|size_available|real_time|mounts|'
                      '(block|inode)_(used|avail)')
ZIP = re.compile(rb'/[^ "\']*?(?:_payload\.zip|/jobs/[^/]+/\d+\.zip)')

SITECUSTOMIZE = re.compile(rb'Error in sitecustomize; .*\nSyntaxError: .*\(sitecustomize.py, line 1\)\n')


def comparable(outcome: tuple[int, bytes, bytes]) -> tuple[int, object, bytes]:
    """Drop what differs between any two runs: times, figures of the running system, the place of the zip."""
    rc, stdout, stderr = outcome
    # The sitecustomize.py of core 2.19 and 2.20 has a syntax error in it; ours is that of 2.21.
    stderr = SITECUSTOMIZE.sub(b'', stderr)
    stdout, stderr = ZIP.sub(b'<zip>', stdout), ZIP.sub(b'<zip>', stderr)
    try:
        return rc, without_volatile(json.loads(stdout)), stderr
    except ValueError:
        return rc, stdout, stderr


def without_volatile(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_volatile(item) for key, item in value.items()
                if not VOLATILE.search(key) and key not in ('start', 'end', 'delta')}
    if isinstance(value, list):
        # Core makes some lists (ansible_interfaces) out of sets.
        return sorted((without_volatile(item) for item in value), key=repr)
    return value


def differences(found: object, expected: object, where: str = '') -> list[str]:
    """List where two results differ, in few words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return [line for key in sorted({*found, *expected})
                for line in differences(found.get(key), expected.get(key), f'{where}.{key}')]
    return [] if found == expected else [f'{where}: {str(found)[:300]} instead of {str(expected)[:300]}']


def check_same(zygote: ZygoteProcess, module: Module, **more: object) -> None:
    zygote.install(module)
    cold = run_cold(zygote.python, module)
    expected = comparable(cold)
    for _ in range(2):
        found = comparable(zygote.run(module, **more).outcome)
        assert (found[0], found[2]) == (expected[0], expected[2])
        assert differences(found[1], expected[1]) == []


@pytest.mark.parametrize('name', ['ping', 'command', 'stat', 'copy', 'file', 'lineinfile', 'setup'])
def test_a_core_module_gives_the_same_result_as_a_cold_run(
        name: str, pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module],
        tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / 'source', tmp_path / 'target'
    source.write_text('a line\n')
    target.write_text('a line\n')
    arguments = {
        'ping': {}, 'command': {'_raw_params': 'printf "%s" one two'}, 'stat': {'path': '/etc/passwd'},
        'copy': {'src': str(source), 'dest': str(target), 'mode': '0600'},
        'file': {'path': str(target), 'state': 'file', 'mode': '0600'},
        'lineinfile': {'path': str(target), 'line': 'a line'}, 'setup': {},
    }[name]
    module = build(pair[1], name, **arguments)
    target.chmod(0o600)
    check_same(warm, module)


@pytest.mark.parametrize('name', [
    'raises', 'raises_base', 'exit_text', 'exit_big', 'exit_hard', 'not_utf8', 'threads', 'forks_and_returns',
    'closes_all', 'writes_everywhere', 'kills_group', 'looks_at_itself', 'probes', 'deprecates', 'prints_much'])
def test_a_module_that_misbehaves_gives_the_same_result_as_a_cold_run(
        name: str, pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    module = build(pair[1], f'svc_{name}')
    if name == 'raises_base':
        warm.install(module)
        rc, stdout, stderr = warm.run(module).outcome
        assert (rc, stdout) == run_cold(pair[0], module)[:2]
        assert stderr.endswith(b'GeneratorExit: out\n')
        return
    check_same(warm, module)


def test_a_module_finds_the_surroundings_of_a_cold_run(
        pair: tuple[str, str], shared_store: str, build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_surroundings')
    with ZygoteProcess(pair[0], shared_store, cwd=str(tmp_path)) as zygote:
        zygote.install(module)
        cold = json.loads(ZIP.sub(b'<zip>', run_cold(pair[0], module, cwd=str(tmp_path))[1]))
        warm = json.loads(ZIP.sub(b'<zip>', zygote.run(module).blobs[0]))
        assert warm == cold
        assert warm['cwd'] == str(tmp_path)


def test_environment_directory_umask_time_zone_and_limit_are_those_of_the_job(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_surroundings')
    warm.install(module)
    job = {'environment': {'TZ': 'Etc/GMT+5', 'HOME': '/nowhere'}, 'cwd': str(tmp_path), 'umask': 0o27}
    reply = json.loads(warm.run(module, rlimit_nofile=123, **job).blobs[0])
    assert reply['zone'] == ['-05', '-05']
    assert (reply['home'], reply['cwd'], reply['umask'], reply['limits'][0]) == ('/nowhere', str(tmp_path), 0o27, 123)
    again = json.loads(warm.run(module).blobs[0])
    assert (again['cwd'], again['limits'][0]) == (os.getcwd(), again['limits'][0])
    assert again['zone'] != ['-05', '-05'] and again['home'] != '/nowhere'


def test_commands_of_a_module_cost_no_copy_of_its_process(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    module = build(pair[1], 'svc_runs_commands')
    warm.install(module)
    found, cold = json.loads(warm.run(module).blobs[0]), json.loads(run_cold(pair[0], module)[1])
    assert found['ended'] == cold['ended'] and found['ended'][1] == [0, '0027\n']
    assert (found['copies'], cold['copies']) == (1, 2)  # the one for the umask


def test_a_killed_module_reports_its_signal_and_what_it_printed(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    for name, number in (('killed', signal.SIGKILL), ('kills_group_dead', signal.SIGTERM),
                         ('interrupted', signal.SIGINT)):
        module = build(pair[1], f'svc_{name}')
        warm.install(module)
        reply = warm.run(module)
        assert (reply.header['rc'], reply.header['signal']) == (-number, number)
        assert (run_cold(pair[0], module)[0], number) == (-number, number)
    warm.install(build(pair[1], 'ping'))
    assert warm.run(build(pair[1], 'ping')).header['rc'] == 0


@pytest.mark.parametrize('calls', ['setsid setsid setpgrp', 'setpgrp setpgrp setsid', 'setpgid_own', 'setpgid_0'])
def test_a_module_can_lead_a_session_or_a_group_as_in_a_cold_run(
        calls: str, pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    module = build(pair[1], 'svc_leads', calls=calls.replace(' ', ','))
    warm.install(module)
    cold = comparable(run_cold(pair[0], module, below_shell=True))
    assert comparable(warm.run(module).outcome) == cold


def test_a_flush_that_fails_gives_exit_code_120(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    module = build(pair[1], 'svc_full_stdout')
    warm.install(module)
    assert warm.run(module).header['rc'] == run_cold(pair[0], module)[0] == 120


def test_what_a_module_still_holds_at_its_end_comes_to_the_end_it_has_in_a_cold_run(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_leaves_objects', place=str(tmp_path))
    warm.install(module)
    cold = comparable(run_cold(pair[0], module)), sorted(path.name for path in tmp_path.iterdir())
    assert b'Thing ends' in cold[0][1] and cold[1] == ['archive']
    assert (comparable(warm.run(module).outcome), sorted(path.name for path in tmp_path.iterdir())) == cold


def test_files_that_an_imported_module_holds_and_what_c_code_printed_are_whole_at_the_end(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_keeps_files', place=str(tmp_path))
    warm.install(module)
    cold = comparable(run_cold(pair[0], module))
    assert cold[1] == b'{"changed": false}\nby C\n'
    for path in tmp_path.iterdir():
        path.unlink()
    # Where a file cannot be written Python 3.13 says so, earlier ones do not.
    assert comparable(warm.run(module).outcome)[:2] == cold[:2]
    assert [(tmp_path / name).read_text() for name in ('text', 'data')] == ['content', 'content']
    assert gzip.decompress((tmp_path / 'archive').read_bytes()) == b'content'


def test_a_daemon_neither_delays_the_reply_nor_dies_with_the_zygote(
        pair: tuple[str, str], shared_store: str, build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    mark = tmp_path / 'mark'
    module = build(pair[1], 'svc_daemonises', mark=str(mark))
    before = build(pair[1], 'svc_daemonises', mark=str(tmp_path / 'before'))
    with ZygoteProcess(pair[0], shared_store) as zygote:
        zygote.install(before)
        zygote.run(before)
        zygote.install(module)
        started = time.monotonic()
        reply = zygote.run(module)
        assert json.loads(reply.blobs[0])['started']
        assert reply.arrived - started < 1.2
    assert not mark.exists()
    deadline = time.monotonic() + 10
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mark.read_text() == 'alive'


def test_a_module_respawns_under_another_interpreter_from_its_own_zip(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    module = build(pair[1], 'svc_respawns', text='kept')
    check_same(warm, module)
    assert json.loads(warm.run(module).blobs[0])['text'] == 'kept'


def test_jobs_run_at_the_same_time_and_each_sees_its_own_zip(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    sleeper, looker, respawner = (build(pair[1], 'svc_sleeps', seconds=1.0), build(pair[1], 'svc_looks_at_itself'),
                                  build(pair[1], 'svc_respawns', text='kept'))
    for module in (sleeper, looker, respawner):
        warm.install(module)
        warm.run(module)
    cold = comparable(run_cold(pair[0], looker))
    started = time.monotonic()
    sleepers = [warm.start_module(sleeper) for _ in range(4)]
    others = [warm.start_module(looker) for _ in range(2)]
    respawned = warm.start_module(respawner)
    for other in others:
        assert comparable(warm.wait(other).outcome) == cold
    assert json.loads(warm.wait(respawned).blobs[0])['respawned']
    assert all(warm.wait(call).header['rc'] == 0 for call in sleepers)
    assert time.monotonic() - started < 3.5


def test_a_job_with_another_base_file_runs_on_that_file_and_the_others_on_theirs(
        pair: tuple[str, str], warm: ZygoteProcess, build: Callable[..., Module]) -> None:
    plain = build(pair[1], 'svc_own_module_utils')
    paths = json.loads(plain.manifest_text)
    path = 'ansible/module_utils/json_utils.py'
    assert path in paths
    changed = plain.with_files({path: plain.files[paths[path]] + b'\nMARK = "changed"\n'})
    base = 'ansible/module_utils/basic.py'
    rebased = plain.with_files({base: plain.files[paths[base]] + b'\nfrom ansible.module_utils import json_utils\n'
                                                                 b'json_utils.MARK = "rebased"\n'})
    for module in (plain, changed, rebased):
        warm.install(module)
    calls = [(warm.start_module(module), mark) for module, mark in
             [(plain, None), (changed, 'changed'), (rebased, 'rebased')] * 2]
    for call, mark in calls:
        reply = warm.wait(call)
        assert json.loads(reply.blobs[0])['marked'] == mark
    assert warm.statistics()['nurseries'] >= 2
