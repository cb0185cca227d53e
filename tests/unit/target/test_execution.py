# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The output of commands is what core would get of them, whoever writes it and however; a daemon holds no answer up."""
from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from zygote_client import Reply, ZygoteProcess

from ansible_mitogen_svc.target.execution import Executions, Pipe

BASH = '/bin/bash'
ONE = [(f'{sys.version_info.major}.{sys.version_info.minor}', None)]
pytestmark = [
    pytest.mark.skipif(not os.path.exists(BASH), reason='no bash here'),
    pytest.mark.parametrize('pair', ONE, indirect=True, ids=['python']),
]


def execute(zygote: ZygoteProcess, script: str, timeout: float = 20) -> Reply:
    return zygote.call({'op': 'execute', 'argv': [BASH, '-c', script]}, timeout=timeout)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def pipes_of(zygote: ZygoteProcess) -> int:
    place = f'/proc/{zygote.process.pid}/fd'
    return sum(os.readlink(f'{place}/{name}').startswith('pipe:') for name in os.listdir(place))


def test_what_opens_a_standard_stream_again_adds_to_the_output(zygote: ZygoteProcess) -> None:
    for stream, blob in (('/dev/stdout', 0), ('/dev/stderr', 1)):
        script = f'exec 3>{stream}; echo one >&3; echo two >{stream}; echo three >&3'
        assert execute(zygote, script).blobs[blob] == b'one\ntwo\nthree\n'
    assert execute(zygote, 'echo one; echo two >/dev/stdout; echo three').outcome == (0, b'one\ntwo\nthree\n', b'')


def test_a_filter_in_the_background_has_the_time_to_write_after_the_command(
        zygote: ZygoteProcess, tmp_path: pathlib.Path) -> None:
    log = tmp_path / 'log'
    for delay in (0, 0.4):
        script = f'exec > >(sleep {delay}; tee -a {log}) 2>&1; echo text; echo error >&2; exit 3'
        assert execute(zygote, script).outcome == (3, b'text\nerror\n', b'')
    assert log.read_text() == 'text\nerror\n' * 2


def test_a_daemon_that_keeps_the_pipes_open_holds_the_answer_for_a_second_and_lives_on(
        zygote: ZygoteProcess, tmp_path: pathlib.Path) -> None:
    before, mark = pipes_of(zygote), tmp_path / 'mark'
    started = time.monotonic()
    done = execute(zygote, f'(sleep 2.5; head -c 200000 /dev/zero; echo late; echo yes >{mark}) & echo now')
    assert done.outcome == (0, b'now\n', b'') and 0.9 < time.monotonic() - started < 2.4
    assert eventually(mark.exists) and eventually(lambda: pipes_of(zygote) == before)
    assert execute(zygote, 'echo next').outcome == (0, b'next\n', b'')


def test_a_daemon_that_never_is_silent_does_not_hold_the_answer_for_ever(
        pair: tuple[str, str], tmp_path: pathlib.Path) -> None:
    prelude = 'sys.modules["ansible_mitogen_svc.target.execution"].LONGEST = 2.0'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        done = execute(zygote, 'for number in {1..40}; do sleep 0.2; echo more; done & exit 3')
        assert done.header['rc'] == 3 and 1.9 < done.header['elapsed'] < 5 and b'more\nmore\n' in done.blobs[0]
        assert execute(zygote, 'echo next').outcome == (0, b'next\n', b'')


def test_no_more_than_some_pipes_of_daemons_are_kept(pair: tuple[str, str], tmp_path: pathlib.Path) -> None:
    changes = {'SILENCE': 0.1, 'LEFT_OPEN': 4}
    prelude = f'vars(sys.modules["ansible_mitogen_svc.target.execution"]).update({changes})'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        before = pipes_of(zygote)
        for _ in range(5):
            assert execute(zygote, 'sleep 4 & echo now').blobs[0] == b'now\n'
        assert eventually(lambda: pipes_of(zygote) == before + 4, 2)
        assert eventually(lambda: pipes_of(zygote) == before)


def drains() -> set[str]:
    return set(subprocess.run(['pgrep', '-x', 'svc-drain'], capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize('most', [16, 4], ids=['at the end of the zygote', 'where there are too many'])
def test_daemons_that_write_to_pipes_which_the_zygote_let_go_of_live_on(
        most: int, pair: tuple[str, str], tmp_path: pathlib.Path) -> None:
    changes = {'SILENCE': 0.1, 'LEFT_OPEN': most}
    prelude = f'vars(sys.modules["ansible_mitogen_svc.target.execution"]).update({changes})'
    marks, before = [tmp_path / str(number) for number in range(4)], drains()
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        for mark in marks:
            execute(zygote, f'(sleep 3; head -c 200000 /dev/zero; echo late; echo yes >{mark}) & echo now')
        if most == 4:
            assert eventually(lambda: all(mark.exists() for mark in marks))
    assert eventually(lambda: all(mark.exists() for mark in marks))
    assert eventually(lambda: drains() <= before)


def test_the_output_of_answered_commands_takes_no_memory(zygote: ZygoteProcess) -> None:
    def resident() -> int:
        pages = pathlib.Path(f'/proc/{zygote.process.pid}/statm').read_text().split()[1]
        return int(pages) * os.sysconf('SC_PAGE_SIZE')

    execute(zygote, 'head -c 20000000 /dev/zero')
    before = resident()
    for _ in range(6):
        execute(zygote, 'head -c 20000000 /dev/zero')
    assert resident() < before + 30_000_000


def test_a_limit_of_the_size_of_files_does_not_cut_output_off(zygote: ZygoteProcess) -> None:
    assert execute(zygote, 'ulimit -f 1; head -c 100000 /dev/zero').outcome == (0, bytes(100000), b'')


def test_a_command_that_closes_its_streams_is_answered_when_it_exits(zygote: ZygoteProcess) -> None:
    started = time.monotonic()
    assert execute(zygote, 'echo text; exec >&- 2>&-; sleep 0.5; exit 3').outcome == (3, b'text\n', b'')
    assert 0.4 < time.monotonic() - started < 1.4


def test_output_too_large_to_be_sent_is_an_error_of_its_command_only(
        pair: tuple[str, str], tmp_path: pathlib.Path) -> None:
    prelude = 'zygote.frames.MAX_PAYLOAD = 1 << 20'
    with ZygoteProcess(pair[0], str(tmp_path / 'store'), prelude=prelude) as zygote:
        error = execute(zygote, 'head -c 3000000 /dev/zero').header['error']
        assert error['type'] == 'ChildLost' and 'payload of 3000000 bytes is larger than 1048576' in error['message']
        assert execute(zygote, 'head -c 1000000 /dev/zero').outcome == (0, bytes(1000000), b'')


class Unwatched:
    """The event loop of a zygote that forgets descriptors and knows no more."""

    def unwatch(self, descriptor: int) -> None:
        os.fstat(descriptor)


@pytest.mark.usefixtures('pair')
def test_where_no_process_can_be_made_the_pipes_of_daemons_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError('too many processes')

    monkeypatch.setattr(os, 'fork', refuse)
    pipe = Pipe()
    Executions(None, Unwatched())._leave([pipe])
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(pipe.reading)
    pipe.close_writing()
