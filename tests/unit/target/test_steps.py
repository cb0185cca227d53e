# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Steps do what chmod, mkdir, rm and a careful writer would."""
from __future__ import annotations

import errno
import json
import os
import pathlib
import subprocess
import sys

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


REMOVES = """
import json, os, shutil, sys, tempfile
sys.path.insert(0, sys.argv[1])
from ansible_mitogen_svc.target import steps
if os.geteuid() == 0:
    os.setuid(65534)
tree = tempfile.mkdtemp()
for name in 'abc':
    os.makedirs(f'{tree}/{name}/held')
    for path in (f'{tree}/{name}/file', f'{tree}/{name}/held/file'):
        open(path, 'w').close()
    os.chmod(f'{tree}/{name}/held', 0o500)
try:
    steps.run_steps([['remove', tree]], [])
except steps.StepFailed as failure:
    found = [path for path, _, names in os.walk(tree) for name in names]
    print(json.dumps([sorted(os.path.relpath(path, tree) for path in found), failure.reply['error']['errno']]))
for name in 'abc':
    os.chmod(f'{tree}/{name}/held', 0o700)
shutil.rmtree(tree)
"""


def test_remove_takes_whatever_it_can_and_fails_with_the_rest() -> None:
    checkout = str(pathlib.Path(__file__).parents[3])
    printed = subprocess.run([sys.executable, '-c', REMOVES, checkout], capture_output=True, check=True).stdout
    assert json.loads(printed) == [['a/held', 'b/held', 'c/held'], errno.ENOTEMPTY]


def test_a_put_writes_in_place_through_links_and_keeps_the_mode_of_what_is_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'old').write_text('something longer')
    (tmp_path / 'old').chmod(0o604)
    (tmp_path / 'link').symlink_to('old')
    steps.run_steps([['put', str(tmp_path / 'link'), 0o640, 0], ['put', str(tmp_path / 'new'), '640', 1]], [b'a', b'b'])
    assert ((tmp_path / 'old').read_bytes(), (tmp_path / 'old').stat().st_mode & 0o777) == (b'a', 0o604)
    assert ((tmp_path / 'new').read_bytes(), (tmp_path / 'new').stat().st_mode & 0o777) == (b'b', 0o640 & ~umask())


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_failed_step_names_its_place_errno_and_path(tmp_path: pathlib.Path) -> None:
    for bad, number in ((['mkdir', str(tmp_path), 0o700], 17), (['chmod', str(tmp_path / 'none'), 0], 2),
                        (['dance'], None), (['put'], None), (['put', str(tmp_path / 'x'), 0o600, 5], None)):
        with pytest.raises(steps.StepFailed) as failure:
            steps.run_steps([bad], [b''])
        assert failure.value.reply['error']['errno'] == number
    with pytest.raises(steps.StepFailed) as failure:
        steps.run_steps([['mkdir', str(tmp_path), 0o700]], [])
    assert str(tmp_path) in failure.value.reply['error']['message']
