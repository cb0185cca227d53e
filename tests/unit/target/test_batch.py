# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Several runs of a module of core's in one job: each gives what it gives alone, and the first bad one is the last."""
from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from zygote_client import Module, ZygoteProcess

from ansible_mitogen_svc.wire import frames

Build = Callable[..., Module]


def results(zygote: ZygoteProcess, module: Module, items: list[dict[str, Any]],
            blobs: list[bytes]) -> dict[int, dict[str, Any]]:
    zygote.install(module)
    header = dict(module.header, manifest=module.manifest, items=items)
    reply = zygote.call(header, [module.parameters, *blobs])
    rc, stdout, stderr = reply.outcome
    assert rc == 0, stderr
    found = {}
    for index, payload in frames.FrameParser().feed(stdout):
        header, printed = frames.unpack_payload(payload)
        found[index] = {**header, 'result': json.loads(printed[0])} if printed else header
    return found


@pytest.fixture
def here(tmp_path: pathlib.Path) -> pathlib.Path:
    for number in range(4):
        (tmp_path / f'f{number}').write_text(f'file {number}\n')
    return tmp_path


def test_each_item_gives_what_it_gives_alone(
        pair: tuple[str, str], warm: ZygoteProcess, build: Build, here: pathlib.Path) -> None:
    paths = [str(here / f'f{number}') for number in range(4)]
    module = build(pair[1], 'stat', path=paths[0])
    found = results(warm, module, [{}] + [{'set': {'path': path}} for path in paths[1:]], [])
    for number, path in enumerate(paths):
        alone = json.loads(warm.run(build(pair[1], 'stat', path=path)).outcome[1])
        for result in (alone, found[number]['result']):
            del result['stat']['atime']
        assert found[number] == {'rc': 0, 'result': alone}


def test_what_is_written_for_an_item_is_there_before_it_and_not_earlier(
        pair: tuple[str, str], warm: ZygoteProcess, build: Build, here: pathlib.Path) -> None:
    place = str(here / 'source')
    (here / 'source').write_text('first')
    module = build(pair[1], 'copy', src=place, dest=str(here / 'to1'))
    items = [{}, {'set': {'dest': str(here / 'to2')}, 'steps': [['put', place, 0o600, 1]]}]
    found = results(warm, module, items, [b'second'])
    assert [found[number]['result']['changed'] for number in (0, 1)] == [True, True]
    assert [(here / name).read_text() for name in ('to1', 'to2')] == ['first', 'second']


def test_nothing_is_run_behind_a_failure(
        pair: tuple[str, str], warm: ZygoteProcess, build: Build, here: pathlib.Path) -> None:
    module = build(pair[1], 'file', path=str(here / 'f0'), state='file', mode='0600')
    items = [{}, {'set': {'path': str(here / 'missing')}}, {'set': {'path': str(here / 'f2')}}]
    found = results(warm, module, items, [])
    assert sorted(found) == [0, 1]
    assert found[1]['result']['failed'] is True
    assert (here / 'f2').stat().st_mode & 0o777 != 0o600


def test_a_step_that_fails_is_told_and_its_item_is_not_run(
        pair: tuple[str, str], warm: ZygoteProcess, build: Build, here: pathlib.Path) -> None:
    module = build(pair[1], 'stat', path=str(here / 'f0'))
    items = [{}, {'set': {}, 'steps': [['put', str(here / 'none' / 'x'), 0o600, 1]]}]
    found = results(warm, module, items, [b'x'])
    assert found[1]['failed_step'] == 0 and found[1]['error']['errno'] == 2


def test_warnings_of_one_item_are_not_those_of_the_next(
        pair: tuple[str, str], warm: ZygoteProcess, build: Build, here: pathlib.Path) -> None:
    module = build(pair[1], 'svc_deprecates')
    found = results(warm, module, [{}, {'set': {}}], [])
    assert sorted(found) == [0]
    assert len(found[0]['result']['deprecations']) == 1
