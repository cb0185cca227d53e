# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A temporary directory goes with the zygote that made it, when the controller did not come back to remove it."""
from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

import pytest
from zygote_client import Module, ZygoteProcess


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
