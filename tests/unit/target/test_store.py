# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The store keeps what is whole, private and recent."""
from __future__ import annotations

import hashlib
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import time
import zipfile

import pytest

from ansible_mitogen_svc.target import bundle, private_place, store
from ansible_mitogen_svc.target.slots import JobZips


@pytest.fixture
def place(tmp_path: pathlib.Path) -> store.Store:
    return store.Store.open(str(tmp_path / 'store'))


def add(place: store.Store, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    place.add_blob(digest, data)
    return digest


def test_a_blob_that_was_changed_on_disk_is_gone(place: store.Store) -> None:
    digest = add(place, b'content')
    assert place.blob(digest) == b'content'
    path = pathlib.Path(place.root, 'blobs', digest)
    path.write_bytes(b'Content')
    assert place.blob(digest) is None
    assert not path.exists()


def test_everything_in_the_store_is_for_its_owner_alone(place: store.Store) -> None:
    add(place, b'content')
    for path in [pathlib.Path(place.root), *pathlib.Path(place.root).rglob('*')]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_store_that_was_open_to_others_is_closed_to_them_before_use(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'store').mkdir(mode=0o755)
    assert private_place.make_private(str(tmp_path / 'store'))
    assert (tmp_path / 'store').stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a directory to somebody else')
def test_a_store_of_another_user_or_below_another_users_directory_is_refused(tmp_path: pathlib.Path) -> None:
    nobody = pwd.getpwnam('nobody')
    for path in (tmp_path / 'theirs', tmp_path / 'parent'):
        path.mkdir(mode=0o700)
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    assert not private_place.make_private(str(tmp_path / 'theirs'))
    assert not private_place.make_private(str(tmp_path / 'parent' / 'store'))


def test_pruning_removes_what_was_used_least_recently_and_leaves_running_jobs_alone(place: store.Store) -> None:
    digests = [add(place, bytes([number]) * 1000) for number in range(10)]
    now = time.time()
    for age, digest in enumerate(reversed(digests)):
        os.utime(os.path.join(place.root, 'blobs', digest), (now - age * 10000, now - age * 10000))
    assert place.blob(digests[0]) is not None  # now it is the one used last
    zip_path = place.zip_path('a' * 64)
    store.write_atomically(zip_path, (b'z' * 1000,))
    os.utime(zip_path, (1, 1))
    zips = JobZips(place)
    number = zips.take('a' * 64)
    place.shrink(5500)
    assert [os.path.exists(os.path.join(place.root, 'blobs', digest)) for digest in digests] == (
        [True] + [False] * 6 + [True] * 3
    )
    assert not os.path.exists(zip_path)
    assert pathlib.Path(zips.path(number)).read_bytes() == b'z' * 1000


def test_pruning_is_cheap_because_it_is_rare(place: store.Store) -> None:
    for number in range(5):
        add(place, bytes([number]) * 1000)
    assert place.prune(0) > 0
    add(place, b'new')
    assert place.prune(0) == 0


def test_litter_of_dead_zygotes_goes_and_that_of_living_ones_and_other_hosts_stays(place: store.Store) -> None:
    mine = place.make_jobs_directory()
    prefix = os.path.basename(mine).rsplit('-', 2)[0]
    process = subprocess.Popen(['true'])
    process.wait()
    dead = os.path.join(place.root, 'jobs', f'{prefix}-{process.pid}-abcdefgh')
    living = os.path.join(place.root, 'jobs', f'{prefix}-1-abcdefgh')
    elsewhere = os.path.join(place.root, 'jobs', f'{"0" * 16}-{process.pid}-abcdefgh')
    for path in (dead, living, elsewhere):
        os.mkdir(path)
    place.prune()
    assert [os.path.exists(path) for path in (mine, dead, living, elsewhere)] == [True, False, True, True]


def test_without_a_safe_place_a_temporary_store_is_made_and_removed(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'file').write_text('')
    found = store.Store.open(str(tmp_path / 'file'))
    assert found.ephemeral
    add(found, b'content')
    found.close()
    assert not os.path.exists(found.root)


def test_a_temporary_store_in_whose_place_somebody_else_has_a_directory_is_not_used_any_more(
        tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = store.Store('')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    place.relocate()
    old = pathlib.Path(place.root)
    shutil.rmtree(old)
    (tmp_path / 'theirs').mkdir()
    old.symlink_to(tmp_path / 'theirs')
    assert not place.is_ours()
    with pytest.raises(PermissionError):
        place.make_directories()
    place.close()
    assert list((tmp_path / 'theirs').iterdir()) == [] and old.is_symlink()


def test_zips_of_jobs_go_to_a_new_directory_where_the_old_one_is_gone_or_somebody_elses(
        place: store.Store, tmp_path: pathlib.Path) -> None:
    store.write_atomically(place.zip_path('a' * 64), (b'zip',))
    zips = JobZips(place)
    old = pathlib.Path(zips.path(zips.take('a' * 64))).parent
    shutil.rmtree(old)
    (tmp_path / 'theirs').mkdir()
    old.symlink_to(tmp_path / 'theirs')
    new = pathlib.Path(zips.path(zips.take('a' * 64))).parent
    assert new != old and new.parent == old.parent
    zips.close()
    assert list((tmp_path / 'theirs').iterdir()) == [] and not new.exists()


def test_a_zip_of_ours_is_a_zip_to_everybody(tmp_path: pathlib.Path) -> None:
    entries = [('ansible/__init__.py', b''), ('ansible/ü.py', b'x = 1\n'), ('data/file.bin', bytes(range(256)) * 50)]
    path = tmp_path / 'test.zip'
    path.write_bytes(bundle.pack_zip(entries))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [(name, archive.read(name)) for name in archive.namelist()] == entries
    assert path.read_bytes() == bundle.pack_zip(entries)


def test_a_bundle_is_opened_only_when_it_is_whole_and_the_one_asked_for() -> None:
    import marshal

    from ansible_mitogen_svc.wire import frames
    files = {'a.py': 'a' * 64, 'b.py': 'b' * 64, 'c.txt': 'c' * 64}
    identity, _ = frames.pack_manifest(files)
    data = bundle.pack_bundle(files, 'd' * 64, {'a.py': marshal.dumps(compile('x = 5', 'a.py', 'exec')), 'b.py': b''})
    opened = bundle.open_bundle(identity, data)
    assert opened is not None
    space: dict[str, object] = {}
    exec(opened.code('a.py'), space)
    assert space['x'] == 5
    assert ('a.py' in opened, 'b.py' in opened, opened.covers({})) == (True, False, True)
    assert list(opened.paths()) == ['a.py']
    assert bundle.open_bundle('0' * 64, data) is None
    for broken in (None, b'', data[:20], data[:-1], data + b'x', data[:50] + b'\0' + data[51:]):
        assert bundle.open_bundle(identity, broken) is None
