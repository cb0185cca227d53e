# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a new become command would find changed, as a zygote sees it."""
from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest

PROGRAM = '''
import sys
sys.path.insert(0, sys.argv[1])
from ansible_mitogen_svc.target import account
place = sys.argv[2]
for name in ('_OF_SHELLS', '_OF_SESSIONS', '_OF_BECOMING', '_OF_EVERYBODY'):
    setattr(account, name, [place + path for path in getattr(account, name)])
own = account.os.getegid()
entry = [place + '/home', '/bin/sh', 'rig', own]
groups = {own: [own, *account.os.getgroups()]}
account._entry = lambda: tuple(entry)
account.os.getgrouplist = lambda name, number: groups[number]
known = account.Account()
for line in sys.stdin:
    if line.startswith('joined'):
        groups[own].append(4242)
    if line.startswith('moved'):
        entry[0] = '/elsewhere'
    print(known.changed() or 'nothing', flush=True)
'''


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ('home/.config/fish', 'etc/sudoers.d', 'etc/security/limits.d', 'etc/profile.d'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('etc/passwd', 'etc/group', 'etc/environment', 'etc/sudoers.d/old', 'home/.profile'):
        (tmp_path / name).write_text('before\n')
    return tmp_path


class Watcher:
    """A process that asks, for each word, whether something changed."""

    def __init__(self, place: pathlib.Path) -> None:
        checkout = str(pathlib.Path(__file__).resolve().parents[3])
        command = [sys.executable, '-c', PROGRAM, checkout, str(place)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.changed() == 'nothing'

    def changed(self, word: str = 'look') -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(word + '\n')
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *unused: object) -> None:
        self._process.communicate('', timeout=20)


@pytest.mark.parametrize('name', [
    'home/.profile', 'home/.bashrc', 'home/.config/fish/config.fish', 'etc/environment', 'etc/sudoers.d/new',
    'etc/sudoers.d/old', 'etc/security/limits.d/new.conf', 'etc/profile.d/new.sh'])
def test_a_file_that_is_new_or_written_to_is_seen(name: str, place: pathlib.Path) -> None:
    with Watcher(place) as watcher:
        time.sleep(0.02)
        with open(place / name, 'a') as file:
            file.write('after\n')
        assert watcher.changed().startswith(str(place / name).rpartition('/new')[0])


def test_a_file_that_is_removed_is_seen(place: pathlib.Path) -> None:
    with Watcher(place) as watcher:
        os.unlink(place / 'etc/sudoers.d/old')
        assert watcher.changed().startswith(str(place / 'etc/sudoers.d'))


def test_of_the_lists_of_all_accounts_only_what_concerns_this_one_is_a_change(place: pathlib.Path) -> None:
    with Watcher(place) as watcher:
        for name in ('passwd', 'group'):
            (place / 'etc' / name).write_text('somebody else\n')
        assert watcher.changed() == 'nothing'
        (place / 'etc/group').write_text('the same number of bytes\n')
        assert watcher.changed('joined') == '/etc/group'
    with Watcher(place) as watcher:
        (place / 'etc/passwd').write_text('another home\n')
        assert watcher.changed('moved') == '/etc/passwd'
