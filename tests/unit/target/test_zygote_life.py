# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a zygote does beside running modules: its store, its questions, other operations, losses and its end."""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from zygote_client import CHECKOUT, Module, ZygoteProcess, plain_environment

from ansible_mitogen_svc.wire import frames

# The Python that runs the tests: the one whose lines nox -s coverage sees.
ONE = [(f'{sys.version_info.major}.{sys.version_info.minor}', None)]
Build = Callable[..., Module]
one_interpreter = pytest.mark.parametrize('pair', ONE, indirect=True, ids=['python'])
pytestmark = one_interpreter


def children_of(pid: int, title: str) -> list[int]:
    """Processes of a zygote's family by their title, the oldest first."""
    found = []  # (clock ticks at its start, pid)
    for entry in pathlib.Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / 'stat').read_text()
            except OSError:
                continue
            name, rest = status[status.index('(') + 1:status.rindex(')')], status[status.rindex(')') + 2:].split()
            if name == title and (int(rest[1]) == pid or int(rest[1]) in children_of_any(pid)) and rest[0] != 'Z':
                found.append((int(rest[19]), int(entry.name)))
    return [number for _, number in sorted(found)]


def children_of_any(pid: int) -> list[int]:
    return [int(child) for child in pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it did not happen in time'
        time.sleep(0.02)


# The store

def test_a_second_zygote_on_a_store_needs_no_code_and_no_question(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    ping, command = build(pair[1], 'ping'), build(pair[1], 'command', _raw_params='true')
    store = str(tmp_path / 'store')
    with ZygoteProcess(pair[0], store) as first:
        for module in (ping, command):
            first.install(module)
            assert first.run(module).header['rc'] == 0
    with ZygoteProcess(pair[0], store) as second:
        assert sorted(second.hello['manifests']) == sorted([ping.manifest, command.manifest])
        assert second.hello['store'] == store
        for module in (command, ping):
            assert second.run(module).header['rc'] == 0
        assert second.questions == []
        assert second.statistics()['builds'] == 0


def test_what_is_missing_is_asked_for_and_others_do_not_wait(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping, command = build(pair[1], 'ping'), build(pair[1], 'command', _raw_params='true')
    zygote.offer(ping)
    assert zygote.run(ping).header['rc'] == 0
    assert zygote.questions[0] == [ping.manifest]
    assert set(zygote.questions[1]) == set(ping.files)
    partial = [digest for digest in command.files if digest not in ping.files][:1]
    zygote.install(command, only=partial)
    zygote.offer(command)
    waiting = zygote.start_module(command)
    assert zygote.run(ping).header['rc'] == 0
    assert zygote.wait(waiting).header['rc'] == 0
    asked = {digest for question in zygote.questions[2:] for digest in question}
    assert asked == set(command.files) - set(ping.files) - set(partial)


def test_a_file_that_nobody_has_fails_its_job_and_is_asked_for_again_by_the_next(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping = build(pair[1], 'ping')
    reply = zygote.run(ping)
    assert reply.header['error']['type'] == 'ManifestLost'
    zygote.offer(ping)
    lost = zygote.library.pop(sorted(ping.files)[0])
    assert zygote.run(ping).header['error']['type'] == 'ManifestLost'
    zygote.library[sorted(ping.files)[0]] = lost
    assert zygote.run(ping).header['rc'] == 0


def test_a_file_with_another_content_than_its_name_says_is_not_used(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping = build(pair[1], 'ping')
    zygote.offer(ping)
    digest = next(digest for digest, data in ping.files.items() if b'pong' in data)
    zygote.library[digest] = ping.files[digest].replace(b'pong', b'evil')
    assert 'error' in zygote.run(ping).header
    zygote.library[ping.manifest] = ping.manifest_text.replace(b'a', b'b')
    assert 'error' in zygote.run(ping).header
    zygote.offer(ping)
    assert json.loads(zygote.run(ping).blobs[0])['ping'] == 'pong'


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'empty'])
def test_damaged_files_of_the_store_are_noticed_and_written_again(
        damage: str, pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    ping, command = build(pair[1], 'ping'), build(pair[1], 'command', _raw_params='true')
    store = tmp_path / 'store'
    with ZygoteProcess(pair[0], str(store)) as first:
        for module in (ping, command):
            first.install(module)
            first.run(module)
    files = [path for path in store.rglob('*') if path.is_file()]
    contents = {path: path.read_bytes() for path in files if path.stat().st_size}
    for path, data in contents.items():
        path.write_bytes({'truncate': data[:len(data) // 2], 'empty': b'',
                          'flip': data[:-1] + bytes([data[-1] ^ 1])}[damage])
    with ZygoteProcess(pair[0], str(store)) as second:
        for module in (ping, command):
            second.offer(module)
            assert second.run(module).header['rc'] == 0
    changed = [path.name for path, data in contents.items() if path.read_bytes() != data]
    assert changed == []


def test_many_zygotes_fill_one_store_at_once(pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    modules = [build(pair[1], 'ping'), build(pair[1], 'command', _raw_params='true'), build(pair[1], 'file', path='/')]
    zygotes = [ZygoteProcess(pair[0], str(tmp_path / 'store')) for _ in range(4)]
    try:
        calls = []
        for zygote in zygotes:
            for module in modules:
                zygote.install(module)
                calls.append((zygote, zygote.start_module(module)))
        assert {zygote.wait(call).header['rc'] for zygote, call in calls} == {0}
    finally:
        for zygote in zygotes:
            zygote.close()
    assert [path for path in (tmp_path / 'store').rglob('.*') if path.is_file()] == []
    with ZygoteProcess(pair[0], str(tmp_path / 'store')) as last:
        assert [last.run(module).header['rc'] for module in modules] == [0, 0, 0]
        assert (last.questions, last.statistics()['builds']) == ([], 0)


def test_a_store_that_somebody_else_could_write_is_not_used(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    ping = build(pair[1], 'ping')
    shared = tmp_path / 'shared'
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / 'elsewhere').mkdir(mode=0o700)
    (tmp_path / 'link').symlink_to(tmp_path / 'elsewhere')
    for path in (shared / 'store', tmp_path / 'link'):
        with ZygoteProcess(pair[0], str(path), {'TMPDIR': str(tmp_path / 'elsewhere')}) as zygote:
            assert zygote.hello['store'] is None
            zygote.install(ping)
            assert zygote.run(ping).header['rc'] == 0
    assert list((tmp_path / 'elsewhere').iterdir()) == []


def test_a_job_survives_the_removal_of_the_whole_store(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    import shutil
    ping = build(pair[1], 'ping')
    with ZygoteProcess(pair[0], str(tmp_path / 'store')) as zygote:
        zygote.offer(ping)
        zygote.run(ping)
        shutil.rmtree(tmp_path / 'store')
        reply = zygote.run(ping)
        assert reply.header.get('rc') == 0, reply.header


@pytest.mark.parametrize('instead', [True, False], ids=['with another in its place', 'removed'])
def test_a_job_survives_the_loss_of_a_temporary_store_and_writes_nothing_where_it_was(
        instead: bool, pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    import shutil
    ping, scratch, theirs = build(pair[1], 'ping'), tmp_path / 'scratch', tmp_path / 'theirs'
    for path in (scratch, theirs):
        path.mkdir()
    with ZygoteProcess(pair[0], '/nonexistent/store', {'TMPDIR': str(scratch)}) as zygote:
        zygote.offer(ping)
        zygote.run(ping)
        old, = scratch.iterdir()
        shutil.rmtree(old)
        if instead:
            old.symlink_to(theirs)
        assert [zygote.run(ping).header.get('rc') for _ in range(2)] == [0, 0]
        assert len(list(scratch.iterdir())) == 1 + instead and old.exists() == instead
        assert list(theirs.iterdir()) == []
    assert list(scratch.iterdir()) == [old] * instead


# Jobs

def test_a_spare_child_is_used_even_for_code_that_came_after_it(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping, command = build(pair[1], 'ping'), build(pair[1], 'command', _raw_params='true')
    for module in (ping, command):
        zygote.install(module)
        for _ in range(3):
            assert zygote.run(module).header['rc'] == 0
    # All but the second: the first job, which often is the only one, has no child forked behind it.
    assert zygote.statistics()['spares_used'] == 5


def test_steps_run_in_order_before_the_module_and_a_failing_one_stops_it(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build, tmp_path: pathlib.Path) -> None:
    place = tmp_path / 'new' / 'dir'
    module = build(pair[1], 'stat', path=str(place / 'file'), get_checksum=False)
    zygote.install(module)
    header = dict(module.header, steps=[['mkdir', str(place), 0o711], ['put', str(place / 'file'), '600', 1],
                                        ['chmod', str(place / 'file'), 'g+r'], ['chmod', str(place / 'file'), 'u+x']])
    reply = zygote.call(header, [module.parameters, b'content'])
    stat = json.loads(reply.blobs[0])['stat']
    assert (stat['mode'], stat['size'], (place / 'file').read_bytes()) == ('0740', 7, b'content')
    assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o711, 0o700)
    failed = zygote.call(header, [module.parameters, b'content'])
    assert failed.header['failed_step'] == 0
    assert failed.header['error']['errno'] == 17
    assert 'rc' not in failed.header
    removals = [['remove', str(tmp_path / 'new')], ['remove', '/nowhere/x']]
    assert zygote.call({'op': 'steps', 'steps': removals}).header == {}
    assert not (tmp_path / 'new').exists()


def test_execute_runs_a_command_with_input_environment_directory_and_umask(
        zygote: ZygoteProcess, tmp_path: pathlib.Path) -> None:
    # Not into a pipe, which the shell itself has open as well for a moment. The last descriptor is of the directory.
    script = 'cat; echo $NAME; pwd; umask; echo err >&2; ls /proc/self/fd; exit 3'
    reply = zygote.call({'op': 'execute', 'argv': ['/bin/sh', '-c', script], 'environment': {'NAME': 'value'},
                         'cwd': str(tmp_path), 'umask': 0o27}, [b'input\n'])
    assert reply.header['rc'] == 3
    assert reply.blobs[0] == f'input\nvalue\n{tmp_path}\n0027\n0\n1\n2\n3\n'.encode()
    assert reply.blobs[1] == b'err\n'
    assert zygote.call({'op': 'execute', 'argv': ['sh', '-c', 'kill -9 $$']}).header['signal'] == 9
    assert zygote.call({'op': 'execute', 'argv': ['/no/such/program']}).header['error']['type'] == 'FileNotFoundError'
    started = time.monotonic()
    zygote.call({'op': 'execute', 'argv': ['sh', '-c', 'sleep 5 &']})
    assert time.monotonic() - started < 4
    sigpipe = zygote.call({'op': 'execute', 'argv': ['sh', '-c', 'yes | head -1']})
    assert (sigpipe.blobs[0], sigpipe.blobs[1]) == (b'y\n', b'')


def test_a_package_installed_between_two_jobs_is_seen_by_the_second(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    packages = tmp_path / 'packages'
    packages.mkdir()
    module = build(pair[1], 'svc_imports')
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), {'PYTHONPATH': str(packages)}) as zygote:
        zygote.install(module)
        assert json.loads(zygote.run(module).blobs[0])['found'] == [False, False]
        # basic imports systemd if it can, once, when it is itself imported
        (packages / 'systemd').mkdir()
        (packages / 'systemd' / '__init__.py').write_text('')
        (packages / 'systemd' / 'daemon.py').write_text('def booted(): return True\n')
        (packages / 'systemd' / 'journal.py').write_text('def sendv(): pass\ndef send(*a, **k): pass\n')
        (packages / 'svc_new_package.py').write_text('')
        assert json.loads(zygote.run(module).blobs[0])['found'] == [True, True]
        assert zygote.statistics()['nurseries_started'] == 2


def test_what_a_module_imports_of_the_standard_library_is_there_for_its_next_run(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    first, module = build(pair[1], 'ping'), build(pair[1], 'svc_sees_imports')
    with ZygoteProcess(pair[0], str(tmp_path / 'store')) as zygote:
        zygote.install(first)
        zygote.run(first)
        zygote.install(module)
        seen = []
        for _ in range(4):
            seen.append(json.loads(zygote.run(module).blobs[0])['seen'])
            time.sleep(0.2)
        # colorsys is a module of which nobody has said that importing it is quiet
        assert (seen[0], seen[-1]) == ([], ['filecmp']), seen


def test_a_new_locale_is_known_to_the_next_job(pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'ping')
    locales = tmp_path / 'locales'
    locales.mkdir()
    prelude = f'zygote.jobs.nurseries.WATCHED = ({str(locales)!r},)'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        zygote.install(module)
        zygote.run(module)
        zygote.run(module)
        assert zygote.statistics()['nurseries_started'] == 1
        (locales / 'xx_YY').mkdir()
        zygote.run(module)
        assert zygote.statistics()['nurseries_started'] == 2


def test_more_jobs_than_memory_allows_wait_for_their_turn(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_sleeps', seconds=0.4)
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude='zygote.jobs.CHILD_BYTES = 1 << 60') as zygote:
        zygote.install(module)
        zygote.run(module)
        calls = [zygote.start_module(module) for _ in range(10)]
        seen = zygote.statistics()
        assert (seen['jobs'], seen['waiting']) == (4, 6)
        replies = [zygote.wait(call) for call in calls]
        assert {reply.header['rc'] for reply in replies} == {0}
        assert max(reply.arrived for reply in replies) - min(reply.arrived for reply in replies) > 0.6


# Descriptors and space run out

@contextlib.contextmanager
def descriptors_limited(pid: int, number: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def open_descriptors(pid: int) -> list[int]:
    return sorted(int(name) for name in os.listdir(f'/proc/{pid}/fd'))


def test_more_jobs_than_descriptors_allow_wait_for_their_turn(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_sleeps', seconds=0.2)
    prelude = 'import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        zygote.install(module)
        calls = [zygote.start_module(module) for _ in range(40)]
        assert {zygote.wait(call).header.get('rc') for call in calls} == {0}


@pytest.mark.parametrize('first', [True, False], ids=['the first', 'a later one'])
def test_code_that_could_not_be_built_for_want_of_descriptors_is_built_for_the_next_job(
        first: bool, pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping, command = build(pair[1], 'ping'), build(pair[1], 'command', _raw_params='true')
    for module in (ping, command):
        zygote.offer(module)
    if not first:
        assert zygote.run(command).header['rc'] == 0
    with descriptors_limited(zygote.process.pid, 4):
        zygote.install(ping)
        assert 'Too many open files' in zygote.run(ping, timeout=10).header['error']['message']
    assert zygote.run(ping, timeout=10).header['rc'] == 0


def test_a_job_that_is_refused_for_want_of_descriptors_was_not_begun_and_keeps_none(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build, tmp_path: pathlib.Path) -> None:
    mark = tmp_path / 'mark'
    module = build(pair[1], 'command', _raw_params=f'sh -c "echo run >> {mark}"')
    zygote.install(module)
    for _ in range(2):
        assert zygote.run(module).header['rc'] == 0
    wait_until(lambda: children_of(zygote.process.pid, 'svc-job'))
    before = open_descriptors(zygote.process.pid)
    done, refused = 2, 0
    for limit in range(6, before[-1] + 8):
        with descriptors_limited(zygote.process.pid, limit):
            header = zygote.run(module).header
        done, refused = done + ('rc' in header), refused + ('error' in header)
        # A spare child that was given a job begins it at once.
        assert zygote.call({'op': 'execute', 'argv': ['sleep', '0.1']}).header['rc'] == 0
        assert len(mark.read_text().split()) == done
    assert refused
    assert zygote.run(module).header['rc'] == 0
    wait_until(lambda: len(open_descriptors(zygote.process.pid)) == len(before))


DISK = """
import errno, os

def fill_up(store, full):
    \"\"\"Let the disk of a store be full while a file exists.\"\"\"
    for name in ('mkdir', 'link', 'symlink', 'rename'):
        def make(*arguments, name=name, function=getattr(os, name), **more):
            place = str(arguments[name != 'mkdir'])
            if place.startswith(store) and not os.path.exists(place) and os.path.exists(full):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
            return function(*arguments, **more)
        setattr(os, name, make)
"""


@pytest.mark.parametrize('start', [True, False], ids=['at the start', 'later'])
def test_a_store_whose_disk_is_full_costs_no_job(
        start: bool, pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    store, full, scratch = tmp_path / 'store', tmp_path / 'full', tmp_path / 'scratch'
    scratch.mkdir()
    (tmp_path / 'svc_disk.py').write_text(DISK)
    environment = {'PYTHONPATH': str(tmp_path), 'TMPDIR': str(scratch)}
    prelude = f'import svc_disk; svc_disk.fill_up({str(store)!r}, {str(full)!r})'
    known, new = build(pair[1], 'ping'), build(pair[1], 'command', _raw_params='true')
    with ZygoteProcess(pair[0], str(store)) as zygote:
        zygote.install(known)
        assert zygote.run(known).header['rc'] == 0
    if start:
        full.touch()
    with ZygoteProcess(pair[0], str(store), environment, prelude=prelude) as zygote:
        full.touch()
        zygote.offer(new)
        zygote.offer(known)
        for module in (known, new, known):
            assert zygote.run(module).header.get('rc') == 0
    assert list(scratch.iterdir()) == []


def test_a_temporary_store_that_was_removed_moves_once_for_all_jobs_that_notice(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    open_to_all, scratch = tmp_path / 'open', tmp_path / 'scratch'
    for place in (open_to_all, scratch):
        place.mkdir()
    open_to_all.chmod(0o777)
    modules = [build(pair[1], name, **arguments) for name, arguments in (
        ('ping', {}), ('stat', {'path': '/'}), ('command', {'_raw_params': 'true'}), ('slurp', {'src': '/etc/hosts'}))]
    with ZygoteProcess(pair[0], str(open_to_all / 'store'), {'TMPDIR': str(scratch)}) as zygote:
        for module in modules:
            zygote.offer(module)
        assert zygote.run(modules[0]).header['rc'] == 0
        for made in scratch.iterdir():
            shutil.rmtree(made)
        calls = [zygote.start_module(module) for module in modules[1:]]
        assert [zygote.wait(call).header.get('rc') for call in calls] == [0, 0, 0]
    assert not list(scratch.iterdir())


# Losses and ends

def test_a_killed_nursery_costs_no_job_and_is_replaced(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping, sleeper = build(pair[1], 'ping'), build(pair[1], 'svc_sleeps', seconds=1.0)
    for module in (ping, sleeper):
        zygote.install(module)
        zygote.run(module)
    running = zygote.start_module(sleeper)
    wait_until(lambda: zygote.statistics()['jobs'] == 1)
    for pid in children_of(zygote.process.pid, 'svc-nursery'):
        os.kill(pid, signal.SIGKILL)
    assert zygote.run(ping).header['rc'] == 0
    assert json.loads(zygote.wait(running).blobs[0])['slept']


def test_a_job_given_to_a_child_its_nursery_never_made_runs_in_another(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping, sleeper = build(pair[1], 'ping'), build(pair[1], 'svc_sleeps', seconds=0.1)
    for module in (ping, sleeper):
        zygote.install(module)
        zygote.run(module)
    wait_until(lambda: children_of(zygote.process.pid, 'svc-job'))
    [nursery] = children_of(zygote.process.pid, 'svc-nursery')
    os.kill(nursery, signal.SIGSTOP)
    assert zygote.run(sleeper).header['rc'] == 0  # in the spare child, which was there already
    calls = [zygote.start_module(ping) for _ in range(3)]
    wait_until(lambda: zygote.statistics()['jobs'] == 3)
    os.kill(nursery, signal.SIGKILL)
    assert [zygote.wait(call).header['rc'] for call in calls] == [0, 0, 0]
    assert zygote.statistics()['given_again'] == 3


def test_a_job_whose_child_is_killed_before_it_begins_runs_in_another_and_not_for_ever(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping = build(pair[1], 'ping')
    zygote.install(ping)
    for _ in range(2):
        zygote.run(ping)  # from the second job on there is a spare child
    for kills, answer in ((1, 0), (3, 0), (4, 'ChildLost')):
        header = reply_after_kills(zygote, ping, kills)
        assert header.get('rc', header.get('error', {}).get('type')) == answer
        if answer:
            assert 'before they began' in header['error']['message'] and 'signal 9' in header['error']['message']


def reply_after_kills(zygote: ZygoteProcess, module: Module, kills: int) -> dict[str, object]:
    """Run a module, killing the children it is given to before they begin; the header of its reply."""
    def jobs() -> list[int]:
        return children_of(zygote.process.pid, 'svc-job')

    def stop_spare() -> None:
        os.kill(jobs()[-1], signal.SIGSTOP)

    def only_the_spare_is_there() -> bool:
        found = jobs()  # the child of the job before may be about to exit
        time.sleep(0.1)
        return len(found) == 1 and found == jobs()

    before = zygote.statistics()['given_again']
    wait_until(only_the_spare_is_there)
    stop_spare()
    call = zygote.start_module(module)
    for kill in range(1, kills + 1):
        wait_until(lambda: len(jobs()) == 2)  # the one with the job, and the next spare
        stop_spare()
        os.kill(jobs()[0], signal.SIGKILL)
        expected = before + min(kill, 3)
        wait_until(lambda expected=expected: zygote.statistics()['given_again'] == expected)
    wait_until(jobs)
    for pid in jobs():
        os.kill(pid, signal.SIGCONT)
    return zygote.wait(call).header


def test_a_job_that_may_have_begun_is_not_run_twice_and_its_error_says_what_died(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build, tmp_path: pathlib.Path) -> None:
    line = f'echo run >> {tmp_path}/runs; sleep 30'
    module = build(pair[1], 'command', _raw_params=line, _uses_shell=True)
    zygote.install(module)
    call = zygote.start_module(module)
    wait_until(lambda: (tmp_path / 'runs').exists())
    [nursery] = children_of(zygote.process.pid, 'svc-nursery')
    jobs = children_of(zygote.process.pid, 'svc-job')
    os.kill(nursery, signal.SIGKILL)
    for pid in jobs:
        os.killpg(pid, signal.SIGKILL)
    error = zygote.wait(call).header['error']
    assert error['type'] == 'ChildLost'
    assert f'(process {nursery})' in error['message'] and 'not run again' in error['message']
    assert (tmp_path / 'runs').read_text() == 'run\n'
    assert zygote.statistics()['given_again'] == 0


def test_a_killed_spare_child_costs_no_job(pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping = build(pair[1], 'ping')
    zygote.install(ping)
    zygote.run(ping)
    zygote.run(ping)  # the second job is the first one with a child forked behind it
    for _ in range(3):
        wait_until(lambda: children_of(zygote.process.pid, 'svc-job'))
        for pid in children_of(zygote.process.pid, 'svc-job'):
            with contextlib.suppress(ProcessLookupError):  # that of the job before may be about to exit
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        assert zygote.run(ping).header['rc'] == 0


@pytest.mark.parametrize('how', ['end of input', 'retire', 'kill'])
def test_the_end_of_a_zygote_takes_its_jobs_along(
        how: str, pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_sleeps', seconds=60.0)
    zygote = ZygoteProcess(pair[0], str(tmp_path / 'store'))
    zygote.install(module)
    zygote.start_module(module)
    zygote.start({'op': 'execute', 'argv': ['sh', '-c', 'trap "" TERM; sleep 61; sleep 61']})
    wait_until(lambda: zygote.statistics()['jobs'] == 2)
    wait_until(lambda: len(children_of(zygote.process.pid, 'svc-job')) == 2)
    family = [*children_of_any(zygote.process.pid), *children_of(zygote.process.pid, 'svc-job')]
    if how == 'retire':
        assert zygote.call({'op': 'retire'}).header == {}
    elif how == 'kill':
        family = [pid for pid in family if b'trap' not in pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()]
        zygote.process.kill()
    assert zygote.close() in (0, -9)
    # Who had it end finds nothing of it, unless nobody was left to wait.
    wait_until(lambda: not any(is_alive(pid) for pid in family), 3 if how == 'kill' else 0)
    if how != 'kill':
        assert list((tmp_path / 'store' / 'jobs').iterdir()) == []


@pytest.mark.parametrize('how', ['end of input', 'kill', 'package'])
def test_what_a_job_left_behind_lives_on_when_its_nursery_ends_before_it_has_seen_the_job_exit(
        how: str, pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    packages, mark = tmp_path / 'packages', tmp_path / 'mark'
    packages.mkdir()
    ping, module = build(pair[1], 'ping'), build(pair[1], 'svc_leaves_behind', mark=str(mark), seconds=0.5)
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), {'PYTHONPATH': str(packages)}) as zygote:
        for each in (ping, module):
            zygote.install(each)
        zygote.run(ping)
        running = zygote.start_module(module)
        wait_until(mark.with_name('mark-begun').exists)
        nurseries = children_of(zygote.process.pid, 'svc-nursery')
        for pid in nurseries:
            os.kill(pid, signal.SIGSTOP)
        try:
            if how == 'package':
                (packages / 'svc_new_package.py').touch()
                zygote.run(ping)  # by another nursery; those before end with their last jobs
            assert json.loads(zygote.wait(running).blobs[0])['started']
            if how == 'kill':
                zygote.process.kill()
            elif how == 'end of input':
                zygote.process.stdin.close()
            time.sleep(0.2)
        finally:
            for pid in nurseries:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not any(is_alive(pid) for pid in nurseries))
    wait_until(mark.exists)


_HEARS_OF_AN_EXIT_AT_ITS_END = """
import os, socket, time
from ansible_mitogen_svc.target import nursery, process

ours, theirs = socket.socketpair()

def start(seconds):
    pid = os.fork()
    if not pid:
        os.setsid()
        time.sleep(seconds)
        os._exit(0)
    return pid

pid = os.fork()
if not pid:
    ours.close()
    ending = nursery.Nursery.__new__(nursery.Nursery)
    ending._wire = process.Wire(theirs)
    ending._children = {start(0): 1, start(2): 2}
    time.sleep(0.5)  # the zygote has said `end`, and is gone
    ending._report()
    ending._obey()
theirs.close()
wire = process.Wire(ours)
wire.send({'end': ENDS})
wire.socket.close()
_, status = os.waitpid(pid, 0)
print(status)
"""


@pytest.mark.parametrize(('ends', 'left'), [([], 1), ([2], 0)], ids=['nobody', 'who has not answered'])
def test_a_nursery_that_cannot_tell_of_an_exit_any_more_ends_whom_the_zygote_named(
        ends: list[int], left: int, pair: tuple[str, str]) -> None:
    script = _HEARS_OF_AN_EXIT_AT_ITS_END.replace('ENDS', str(ends))
    began = time.monotonic()
    with subprocess.Popen([pair[0], '-c', script], stdout=subprocess.PIPE, text=True, start_new_session=True,
                          env={**plain_environment(), 'PYTHONPATH': str(CHECKOUT)}) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == '0\n'
        ended = time.monotonic() - began
        # Whoever lives on holds the pipe until it has slept.
        assert started.stdout.read() == ''
    assert (time.monotonic() - began > ended + 0.5) == bool(left)


_ENDS_A_LARGE_PROCESS = """
import os, signal, time
from ansible_mitogen_svc.target import nursery
ready, begun = os.pipe()
pid = os.fork()
if not pid:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    memory = bytearray(b"x") * (256 << 20)  # which the kernel takes some time to give back
    os.write(begun, b"x")
    time.sleep(60)
os.read(ready, 1)
nursery.end_groups([pid])
print(os.path.exists(f"/proc/{pid}"))
"""


def test_who_has_jobs_cut_off_waits_until_the_killed_ones_have_ended_too(pair: tuple[str, str]) -> None:
    done = subprocess.run([pair[0], '-c', _ENDS_A_LARGE_PROCESS], capture_output=True, text=True, timeout=60,
                          env={**plain_environment(), 'PYTHONPATH': str(CHECKOUT)})
    assert (done.stdout, done.stderr) == ('False\n', '')


def is_alive(pid: int) -> bool:
    try:
        return ') Z ' not in pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False


def test_a_frame_above_the_limit_ends_the_zygote_with_an_error_frame(zygote: ZygoteProcess) -> None:
    assert zygote.process.stdin is not None
    zygote.process.stdin.write(struct.pack('!II', frames.MAX_PAYLOAD + 1, 5))
    assert zygote.error_notice()['error']['type'] == 'FrameError'
    assert zygote.process.wait(5) == 0


def test_a_job_whose_output_is_too_large_to_be_sent_costs_no_other_its_answer(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    large, sleeper = build(pair[1], 'svc_prints_much'), build(pair[1], 'svc_sleeps', seconds=1.0)
    prelude = 'zygote.frames.MAX_PAYLOAD = 1 << 20'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        for module in (large, sleeper):
            zygote.install(module)
        running = zygote.start_module(sleeper)
        error = zygote.run(large).header['error']
        assert error['type'] == 'ChildLost' and 'is larger than 1048576' in error['message']
        assert json.loads(zygote.wait(running).blobs[0])['slept']


@pytest.mark.parametrize(
    'data', [b'a line\n', b'[1]\n', b'{"fds": 0}\n', b'{"ready": 1, "fds": 0}\n', b'[' * 90000 + b'\n'])
def test_code_that_writes_to_our_own_descriptors_while_it_is_imported_costs_no_more_than_its_own_jobs(
        data: bytes, pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    sleeper = build(pair[1], 'svc_sleeps', seconds=1.0)
    path = 'ansible/module_utils/common/validation.py'
    source = sleeper.files[json.loads(sleeper.manifest_text)[path]]
    writer = sleeper.with_files({path: source + WRITER.format(data=data).encode()})
    for module in (sleeper, writer):
        zygote.install(module)
    running = zygote.start_module(sleeper)
    assert zygote.run(writer).header['error']['type'] == 'BaseSetFailed'
    assert json.loads(zygote.wait(running).blobs[0])['slept']


WRITER = '''
import os
for _descriptor in range(3, 30):
    try:
        os.write(_descriptor, {data!r})
    except OSError:
        pass
'''


def test_nonsense_requests_get_an_error_and_harm_nothing(
        pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    for header in ({}, {'op': 'dance'}, {'op': 'run'}, {'op': 'run', 'manifest': '../../etc'},
                   {'op': 'run', 'manifest': 5}, {'op': 'steps', 'steps': 3}, {'op': 'install', 'manifest': 'x'},
                   {'op': 'execute', 'argv': []}):
        assert 'error' in zygote.call(header).header, header
    ping = build(pair[1], 'ping')
    zygote.install(ping)
    assert zygote.run(ping).header['rc'] == 0


def test_an_interpreter_replaced_on_disk_is_an_error_that_says_so(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    ping = build(pair[1], 'ping')
    prelude = f'import sys; sys.executable = {str(tmp_path / "py")!r}; open(sys.executable, "w").close()'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        zygote.install(ping)
        assert zygote.run(ping).header['rc'] == 0
        os.utime(tmp_path / 'py', (1, 1))
        assert zygote.run(ping).header['error']['type'] == 'InterpreterChanged'


def test_a_change_of_what_libraries_read_once_is_told_when_nobody_is_in_the_midst_of_a_task(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    ping, sleeper = build(pair[1], 'ping'), build(pair[1], 'svc_sleeps', seconds=1.0)
    settings, own = tmp_path / 'openssl.cnf', tmp_path / 'own'
    prelude = f'zygote.jobs.READ_ONCE = ({str(settings)!r},)'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        for module in (ping, sleeper):
            zygote.install(module)
        assert zygote.run(ping, steps=[['tmpdir', str(own), 0o700]]).header['rc'] == 0
        settings.touch()
        assert zygote.run(ping).header['rc'] == 0  # a task has its files here
        sleeping = zygote.start_module(sleeper)
        zygote.call({'op': 'steps', 'steps': [['remove', str(own)]]})
        assert zygote.run(ping).header['rc'] == 0  # a task has its job here
        assert zygote.wait(sleeping).header['rc'] == 0
        error = zygote.run(ping).header['error']
        assert error['type'] == 'InterpreterChanged' and str(settings) in error['message']
        anew = zygote.call({'op': 'steps', 'steps': [['tmpdir', str(own), 0o700]], 'anew': True})
        assert anew.header['error']['type'] == 'InterpreterChanged' and not own.exists()
        # Another zygote has refused these already: the file changes all the time.
        assert zygote.run(ping, again=True).header['rc'] == 0
        again = {'op': 'steps', 'steps': [['tmpdir', str(own), 0o700]], 'anew': True, 'again': True}
        assert 'error' not in zygote.call(again).header and own.exists()


def test_input_and_output_may_be_one_socket_and_much_may_flow_both_ways(
        pair: tuple[str, str], tmp_path: pathlib.Path) -> None:
    import socket
    checkout = str(pathlib.Path(__file__).resolve().parents[3])
    ours, theirs = socket.socketpair()
    code = f'import sys; sys.path.insert(0, {checkout!r}); from ansible_mitogen_svc.target import zygote; ' \
           f'zygote.main({theirs.fileno()}, {theirs.fileno()}, {str(tmp_path / "store")!r})'
    process = subprocess.Popen([pair[0], '-c', code], pass_fds=[theirs.fileno()])
    theirs.close()
    size = 3 << 20
    request = frames.pack_payload({'op': 'execute', 'argv': ['cat']}, [b'x' * size])
    # Everything is written before anything is read: the zygote must not insist on being read first.
    ours.settimeout(20)
    for number in range(1, 5):
        ours.sendall(frames.pack_frame(number, request))
    parser, seen = frames.FrameParser(), 0
    while seen < 4:
        for number, payload in parser.feed(ours.recv(1 << 20)):
            if number:
                assert len(frames.unpack_payload(payload)[1][0]) == size
                seen += 1
    ours.close()
    assert process.wait(5) == 0


def test_processes_have_titles(pair: tuple[str, str], zygote: ZygoteProcess, build: Build) -> None:
    ping = build(pair[1], 'ping')
    zygote.install(ping)
    zygote.run(ping)
    zygote.run(ping)  # the second job is the first one with a child forked behind it
    assert pathlib.Path(f'/proc/{zygote.process.pid}/comm').read_text() == 'svc-zygote\n'
    assert len(children_of(zygote.process.pid, 'svc-nursery')) == 1
    wait_until(lambda: len(children_of(zygote.process.pid, 'svc-job')) == 1)


def test_a_zygote_holds_no_directory_busy(pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    ping = build(pair[1], 'ping')
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), cwd=str(tmp_path)) as zygote:
        zygote.install(ping)
        zygote.run(ping)
        zygote.run(ping)  # the second job is the first one with a child forked behind it
        wait_until(lambda: len(children_of(zygote.process.pid, 'svc-job')) == 1)
        for pid in (zygote.process.pid, *children_of(zygote.process.pid, 'svc-nursery'),
                    *children_of(zygote.process.pid, 'svc-job')):
            assert os.readlink(f'/proc/{pid}/cwd') == '/'


