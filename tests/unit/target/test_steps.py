# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Steps do what chmod, mkdir, rm and a careful writer would."""
from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from ansible_mitogen_svc.target import steps


@pytest.mark.parametrize('mode', ['u+rwx', 'u+rX', 'go-rwx', 'a+rX', '+x', '-w', 'u=rw,g=r,o=', 'ug+s', '+t', 'u-x+w',
                                  '755', 'o=x', 'a=', 'g+w,o-r', '=r', 'u+rwx,g-rwx,o-rwx'])
@pytest.mark.parametrize('kind', ['file', 'program', 'directory'])
def test_a_symbolic_mode_means_what_it_means_to_chmod(mode: str, kind: str, tmp_path: pathlib.Path) -> None:
    paths = [tmp_path / 'ours', tmp_path / 'theirs']
    for path in paths:
        if kind == 'directory':
            path.mkdir()
        else:
            path.write_text('')
        path.chmod({'file': 0o604, 'program': 0o750, 'directory': 0o750}[kind])
    steps.run_steps([['chmod', str(paths[0]), mode]], [])
    # The end of options: a mode may look like one.
    subprocess.run(['chmod', '--', mode, str(paths[1])], check=True, env={'PATH': os.environ['PATH']})
    assert oct(paths[0].stat().st_mode) == oct(paths[1].stat().st_mode)


def test_what_is_no_mode_is_a_failed_step(tmp_path: pathlib.Path) -> None:
    with pytest.raises(steps.StepFailed) as failure:
        steps.run_steps([['remove', str(tmp_path / 'x')], ['chmod', str(tmp_path), 'u*w']], [])
    assert failure.value.reply['failed_step'] == 1


def test_remove_does_not_follow_links_and_forgives_what_is_missing(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'kept').mkdir()
    (tmp_path / 'kept' / 'file').write_text('')
    (tmp_path / 'tree').mkdir()
    (tmp_path / 'tree' / 'link').symlink_to(tmp_path / 'kept')
    (tmp_path / 'link').symlink_to(tmp_path / 'kept')
    steps.run_steps([['remove', str(tmp_path / name)] for name in ('tree', 'link', 'missing')], [])
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['file', 'kept']


def test_a_write_replaces_a_file_whole_and_leaves_nothing_when_it_cannot(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'target').write_text('old')
    steps.run_steps([['write', str(tmp_path / 'target'), 0o604, 0]], [b'new'])
    assert ((tmp_path / 'target').read_bytes(), (tmp_path / 'target').stat().st_mode & 0o777) == (b'new', 0o604)
    (tmp_path / 'directory').mkdir()
    (tmp_path / 'directory' / 'x').write_text('')
    with pytest.raises(steps.StepFailed):
        steps.run_steps([['write', str(tmp_path / 'directory'), 0o600, 0]], [b'new'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['directory', 'target']


def test_a_failed_step_names_its_place_errno_and_path(tmp_path: pathlib.Path) -> None:
    for bad, number in ((['mkdir', str(tmp_path), 0o700], 17), (['append', str(tmp_path / 'none'), 0], 2),
                        (['dance'], None), (['write'], None), (['write', str(tmp_path / 'x'), 0o600, 5], None)):
        with pytest.raises(steps.StepFailed) as failure:
            steps.run_steps([bad], [b''])
        assert failure.value.reply['error']['errno'] == number
    with pytest.raises(steps.StepFailed) as failure:
        steps.run_steps([['mkdir', str(tmp_path), 0o700]], [])
    assert str(tmp_path) in failure.value.reply['error']['message']
