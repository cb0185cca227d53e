# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A temporary directory goes with the zygote that made it, when the controller did not come back to remove it."""
from __future__ import annotations

import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Callable
from typing import Any

import pytest
from zygote_client import BOOT, CHECKOUT, Module, ZygoteProcess, plain_environment

from ansible_mitogen_svc.wire import frames


@pytest.mark.parametrize('with_job', [False, True], ids=['by steps alone', 'before a job'])
def test_what_a_lost_connection_left_is_removed_and_what_shall_stay_stays(
        with_job: bool, build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    left, kept, used = (tmp_path / name for name in ('left', 'kept', 'used'))
    steps = [['tmpdir', str(left), 0o700], ['mkdir', str(kept), 0o700], ['put', f'{left}/source', 0o600, int(with_job)]]
    with ZygoteProcess(sys.executable, str(tmp_path / 'store')) as zygote:
        if with_job:
            module = build(sys.executable, 'ping')
            zygote.install(module)
            header = dict(module.header, manifest=module.manifest, steps=steps)
            assert zygote.call(header, [module.parameters, b'content']).outcome[0] == 0
        else:
            assert zygote.call({'op': 'steps', 'steps': steps}, [b'content']).header == {}
        assert (left / 'source').read_bytes() == b'content'
        zygote.call({'op': 'steps', 'steps': [['tmpdir', str(used), 0o700]]})
        zygote.call({'op': 'steps', 'steps': [['remove', str(used)]]})
        used.mkdir()  # somebody else's since
    assert not left.exists()
    assert kept.is_dir() and used.is_dir()


@pytest.mark.parametrize('way', ['steps', 'run', 'execute'])
def test_a_directory_that_somebody_else_has_made_stays(
        way: str, build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    theirs, own = tmp_path / 'theirs', tmp_path / 'own'
    theirs.mkdir()
    (theirs / 'file').touch()
    steps = [['tmpdir', str(own), 0o700], ['tmpdir', str(theirs), 0o700]]
    with ZygoteProcess(sys.executable, str(tmp_path / 'store')) as zygote:
        if way == 'run':
            module = build(sys.executable, 'ping')
            zygote.install(module)
            answer = zygote.call(dict(module.header, manifest=module.manifest, steps=steps), [module.parameters])
        else:
            answer = zygote.call({'op': 'execute' if way == 'execute' else 'steps', 'argv': ['true'], 'steps': steps})
        assert answer.header['failed_step'] == 1 and own.is_dir()
    assert (theirs / 'file').exists() and not own.exists()


def test_what_a_zygote_was_asked_to_make_that_could_not_run_the_job_is_left_to_the_one_that_could(
        build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    module, python, path = build(sys.executable, 'ping'), tmp_path / 'python', tmp_path / 'directory'
    prelude = f'import sys; sys.executable = {str(python)!r}; open(sys.executable, "w").close()'
    steps = [['tmpdir', str(path), 0o700]]
    with ZygoteProcess(sys.executable, str(tmp_path / 'store'), prelude=prelude) as zygote:
        zygote.install(module)
        assert zygote.run(module).header['rc'] == 0
        os.utime(python, (1, 1))
        assert zygote.run(module, steps=steps).header['error']['type'] == 'InterpreterChanged'
        path.mkdir()  # as another zygote does that is given the job
    assert path.is_dir()


def test_what_a_job_has_made_that_is_cut_off_is_removed(build: Callable[..., Module], tmp_path: pathlib.Path) -> None:
    module, path = build(sys.executable, 'svc_sleeps', seconds=60), tmp_path / 'directory'
    with ZygoteProcess(sys.executable, str(tmp_path / 'store')) as zygote:
        zygote.install(module)
        zygote.start_module(module, steps=[['tmpdir', str(path), 0o700]])
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.exists()
    assert not path.exists()


def test_a_directory_that_was_made_for_a_command_which_cannot_be_started_is_removed(tmp_path: pathlib.Path) -> None:
    made, there = tmp_path / 'made', tmp_path / 'there'
    there.mkdir()
    with ZygoteProcess(sys.executable, str(tmp_path / 'store')) as zygote:
        for place in (made, there):
            steps = [['tmpdir', str(place), 0o700]]
            zygote.call({'op': 'execute', 'argv': ['/nonexistent'], 'steps': steps}, [b''])
        assert made.is_dir()
    assert not made.exists() and there.is_dir()


def test_nothing_is_left_by_a_zygote_whose_terminal_is_hung_up(tmp_path: pathlib.Path) -> None:
    left = tmp_path / 'left'
    boot = BOOT.format(checkout=str(CHECKOUT), store='/nonexistent/store', prelude='pass')
    master, slave = pty.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests may have had it ignored (nohup)
        os.setsid()
        os.close(os.open(name, os.O_RDWR))

    # As su does, the session's leader waits for the zygote.
    leader = subprocess.Popen(
        ['/bin/sh', '-c', '"$@"; exit 1', 'sh', sys.executable, '-c', boot], stdin=slave, stdout=slave,
        stderr=subprocess.DEVNULL, preexec_fn=take_terminal, env={**plain_environment(), 'TMPDIR': str(tmp_path)})
    os.close(slave)
    parser = frames.FrameParser()
    try:
        hello = _next_answer(master, parser)
        steps = frames.pack_payload({'op': 'steps', 'steps': [['tmpdir', str(left), 0o700]]})
        os.write(master, frames.pack_frame(1, steps))
        _next_answer(master, parser)
        assert left.is_dir() and len(list(tmp_path.iterdir())) == 2  # the other one is the zygote's store
        os.kill(hello['pid'], signal.SIGSTOP)  # a busy host: the leader's end comes before it does anything
    finally:
        os.close(master)
        leader.wait(10)
    os.kill(hello['pid'], signal.SIGCONT)
    deadline = time.monotonic() + 10
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def _next_answer(master: int, parser: frames.FrameParser) -> dict[str, Any]:
    while select.select([master], [], [], 30)[0]:
        for _, payload in parser.feed(os.read(master, 65536)):
            return frames.unpack_header(payload)
    raise TimeoutError('the zygote did not answer')
