# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Two jobs in one question: the second is done when the file's state is the expected one, and never else."""
from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from zygote_client import Module, ZygoteProcess

from ansible_mitogen_svc.wire import frames

Build = Callable[..., Module]
CONTENT = b'a line\n'
SHA1 = hashlib.sha1(CONTENT).hexdigest()


@pytest.fixture
def ask(pair: tuple[str, str], warm: ZygoteProcess, build: Build, tmp_path: pathlib.Path) -> Any:
    """Look at a file, then set its mode to 0600 if it is as expected; gives (state, result of the second or None)."""
    def asked(name: str, same: bool, first: str = 'stat', second: str = 'file', **arguments: Any) -> Any:
        path = str(tmp_path / name)
        looking = build(pair[1], first, path=path, checksum_algorithm='sha1')
        doing = build(pair[1], second, **{'path': path, 'state': 'file', 'mode': '0600', **arguments})
        payloads = []
        for module in (looking, doing):
            warm.install(module)
            header = dict(module.header, manifest=module.manifest)
            payloads.append(frames.pack_payload(header, [module.parameters]))
        reply = warm.call({'op': 'pair', 'when': {'sha1': SHA1, 'same': same}}, payloads)
        second_header = reply.header.get('second')
        assert len(reply.blobs) == (4 if second_header and 'rc' in second_header else 2)
        done = json.loads(reply.blobs[2]) if len(reply.blobs) == 4 else second_header
        return json.loads(reply.blobs[0]), done
    return asked


def mode(path: pathlib.Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_follows_is_done_when_the_file_is_as_expected(ask: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'there').write_bytes(CONTENT)
    (tmp_path / 'there').chmod(0o644)
    state, done = ask('there', True)
    assert state['stat']['checksum'] == SHA1 and state['stat']['mode'] == '0644'
    assert done['changed'] is True and done['mode'] == '0600' and mode(tmp_path / 'there') == 0o600


@pytest.mark.parametrize('kind', ['other content', 'missing', 'directory', 'link'])
def test_what_follows_is_not_done_when_the_file_is_not_the_same(ask: Any, tmp_path: pathlib.Path, kind: str) -> None:
    place = tmp_path / 'place'
    if kind == 'directory':
        place.mkdir(0o755)
    elif kind == 'link':
        (tmp_path / 'real').write_bytes(CONTENT)
        place.symlink_to('real')
    elif kind == 'other content':
        place.write_bytes(b'other')
        place.chmod(0o644)
    assert ask('place', True)[1] is None
    assert not place.exists() or mode(place) != 0o600


def test_what_follows_another_content_is_done_for_another_content_only(ask: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'same').write_bytes(CONTENT)
    (tmp_path / 'other').write_bytes(b'other')
    (tmp_path / 'directory').mkdir()
    assert ask('same', False)[1] is None
    assert ask('directory', False)[1] is None
    assert ask('other', False)[1]['changed'] is True
    made = ask('missing', False, state='touch')
    assert made[0]['stat']['exists'] is False and made[1]['changed'] is True and mode(tmp_path / 'missing') == 0o600


def test_nothing_follows_a_first_job_that_fails(ask: Any, tmp_path: pathlib.Path) -> None:
    state, done = ask('x', False, first='file', second='file')  # an argument that the module does not know
    assert state['failed'] is True and done is None
    assert not os.listdir(tmp_path)


def test_a_second_job_that_fails_says_so_beside_the_first_ones_answer(ask: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'there').write_bytes(CONTENT)
    state, done = ask('there', True, owner='nobody-of-that-name')
    assert state['stat']['exists'] is True and done['failed'] is True


def test_jobs_of_pairs_and_others_run_beside_each_other(
        pair: tuple[str, str], warm: ZygoteProcess, build: Build, ask: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'there').write_bytes(CONTENT)
    for number in range(5):
        assert ask('there', number % 2 == 0)[1] is not None or number % 2
    figures = warm.call({'op': 'ping'}).header
    assert figures['jobs'] == figures['waiting'] == 0
