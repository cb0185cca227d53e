# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A user's module store on the target's disk: manifests, source files, byte code and module zips.

Written by builders (children of a zygote, one per new manifest), read by zygotes and by the agent (broker thread).
Any number of processes of one user share a store without locks.

Theory of operation
1. The directory belongs to the effective user, is 0700, and no directory above it can be written by somebody else.
   Where that cannot be had, `Store.open` makes a private one below the system's temporary directory, as core does
   for its module zips, and the zygote removes it when it ends ("memory only" in the protocol).
2. Every file has a name that says what must be in it (sha256 of a source, id of a manifest), is written under a
   temporary name and renamed, and is compared with its digest when it is read. A file that fails is ignored, and
   whoever can make it writes it again. So writers need no agreement: whoever comes last wins with equal bytes.
3. What depends on the interpreter (byte code, the name in LAST) lies in a directory named by cache tag and magic.
4. A job's zip is a hard link in a directory of its zygote, so that pruning never takes a zip from a running job.
5. Pruning runs at most every ten minutes, after a write, and removes what was used least recently until the store is
   below its limit. Reading a file marks it as used, at most once an hour.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import time

from ansible_mitogen_svc.target.private_place import default_root, is_own_directory, make_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 192 << 20
"""Bytes a store may hold before the least recently used files go."""

PRUNE_EVERY = 600.0
_USED_STEP = 3600.0
_LITTER_AGE = 86400.0

TAG = f'{sys.implementation.cache_tag}-{importlib.util.MAGIC_NUMBER[:2].hex()}'
"""Names the interpreters which can share byte code."""


def read_file(digest: str) -> bytes | None:
    """Return the source file with this sha256 from the effective user's own store, verified; None when it is not there.

    For the agent, which answers other identities' questions with it. A manifest is found by its id in the same way.
    """
    global _own
    if _own is None:
        root = default_root()
        if root is None:
            return None
        _own = Store(root)
    return _own.blob(digest)


_own: Store | None = None


class Store:
    """One store directory. Owned by the process that made the object; forked children may use it as well."""

    def __init__(self, root: str, ephemeral: bool = False) -> None:
        self.root = root
        self.ephemeral = ephemeral
        """The directory is this process's alone and goes with it."""
        self.code = os.path.join(root, 'code', TAG)

    @classmethod
    def open(cls, root: str | None) -> Store:
        """Return the store at `root` (None: the user's own place), or an ephemeral one. Raises OSError for neither."""
        if root is None:
            root = default_root()
        elif not make_private(root):
            root = None
        if root is not None:
            store = cls(root)
            try:
                store.make_directories()
                return store
            except OSError:
                pass
        store = cls('')
        store.relocate()
        return store

    def relocate(self) -> None:
        """Become a new ephemeral store below the system's temporary directory. Raises OSError."""
        import tempfile

        self.root = os.path.realpath(tempfile.mkdtemp(prefix='ansible_mitogen_svc_'))
        self.ephemeral = True
        self.code = os.path.join(self.root, 'code', TAG)
        self.make_directories()

    def is_ours(self) -> bool:
        """Say whether the place is still this process's own.

        Where anybody may make directories, one that was removed meanwhile (old files below /tmp are) may be made again
        by somebody else.
        """
        return not self.ephemeral or is_own_directory(self.root)

    def make_directories(self) -> None:
        """Make what is missing of the store's directories. Raises OSError when it cannot be used."""
        if not (self.is_ours() if self.ephemeral else make_private(self.root)):
            raise PermissionError(13, 'not private', self.root)
        for name in (*map(self._path, ('manifests', 'blobs', 'jobs', 'code')), self.code):
            os.makedirs(name, 0o700, exist_ok=True)
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise PermissionError(13, 'not writable', self.root)

    def _path(self, *names: str) -> str:
        return os.path.join(self.root, *names)

    # Sources and manifests: the name is the sha256 of the content.

    def manifests(self) -> list[str]:
        """Return the ids of the manifests on disk (their files may be missing in part)."""
        try:
            return [name for name in os.listdir(self._path('manifests')) if len(name) == 64]
        except OSError:
            return []

    def blob(self, digest: str) -> bytes | None:
        """Return the source file or manifest with this sha256, verified; None when it is not there."""
        for kind in ('blobs', 'manifests'):
            path = self._path(kind, digest)
            data = _read(path)
            if data is not None:
                if hashlib.sha256(data).hexdigest() == digest:
                    _mark_used(path)
                    return data
                _discard(path)
        return None

    def add_blob(self, digest: str, data: bytes) -> None:
        """Write a source file whose digest was verified. Raises OSError."""
        path = self._path('blobs', digest)
        if not os.path.exists(path):
            write_atomically(path, (data,))

    def add_manifest(self, identity: str, text: bytes) -> None:
        """Write a manifest whose id was verified. Raises OSError."""
        write_atomically(self._path('manifests', identity), (text,))

    # Byte code and zips, for this interpreter.

    def read_bundle(self, identity: str) -> bytes | None:
        """Return the bundle file of a manifest as it is; `bundle.open_bundle` verifies it."""
        path = os.path.join(self.code, identity + '.code')
        data = _read(path)
        if data is not None:
            _mark_used(path)
            _mark_used(self.zip_path(identity))
        return data

    def add_bundle(self, identity: str, parts: Iterable[bytes]) -> None:
        """Write the bundle of a manifest. Raises OSError."""
        write_atomically(os.path.join(self.code, identity + '.code'), parts)

    def zip_path(self, identity: str) -> str:
        """Where the module zip of a manifest lies."""
        return os.path.join(self.code, identity + '.zip')

    def zip_is(self, identity: str, digest: str) -> bool:
        """Say whether the zip of a manifest is there, whole."""
        data = _read(self.zip_path(identity))
        return data is not None and hashlib.sha256(data).hexdigest() == digest

    def last(self) -> str | None:
        """Return the id of the manifest whose base set was preloaded last under this interpreter."""
        data = _read(os.path.join(self.code, 'LAST'))
        return data.decode('ascii', 'replace') if data and len(data) == 64 else None

    def set_last(self, identity: str) -> None:
        """Remember a manifest for the next zygote's preloading, if that can be written."""
        try:
            write_atomically(os.path.join(self.code, 'LAST'), (identity.encode(),))
        except OSError:
            pass

    # Directories of zygotes with the zips of their running jobs.

    def make_jobs_directory(self) -> str:
        """Return a new directory for this process's job zips, named so that others can tell when it is litter.

        Where the store's disk is full, or the user's quota used up, it is elsewhere: core needs no home either. Raises
        OSError.
        """
        import tempfile

        try:
            return tempfile.mkdtemp(prefix=_owner_prefix() + '-', dir=self._path('jobs'))
        except OSError:
            return os.path.realpath(tempfile.mkdtemp(prefix='ansible_mitogen_svc_'))

    # Bounds.

    def prune(self, limit: int = LIMIT) -> int:
        """Remove what was used least recently while the store is above `limit` bytes; return the bytes removed."""
        stamp = self._path('pruned')
        try:
            if time.time() - os.stat(stamp).st_mtime < PRUNE_EVERY:
                return 0
        except FileNotFoundError:
            pass
        try:
            write_atomically(stamp, ())
            self._remove_litter()
        except OSError:
            return 0
        return self.shrink(limit)

    def shrink(self, limit: int) -> int:
        """As `prune`, at once."""
        found = []
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(directory, name)
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                found.append((status.st_mtime, status.st_size, path))
        excess = sum(size for _, size, _ in found) - limit
        removed = 0
        for _, size, path in sorted(found):
            if removed >= excess:
                break
            if not path.startswith(self._path('jobs') + os.sep) and path != self._path('pruned'):
                _discard(path)
                removed += size
        return removed

    def _remove_litter(self) -> None:
        """Remove temporary files of writers that died, and job directories of zygotes that died on this host."""
        import shutil

        now = time.time()
        for directory in (self._path('manifests'), self._path('blobs'), self.code):
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith('.') and now - entry.stat().st_mtime > _LITTER_AGE:
                        _discard(entry.path)
        host, pid = _owner_prefix().rsplit('-', 1)
        with os.scandir(self._path('jobs')) as entries:
            for entry in entries:
                owner = entry.name.rsplit('-', 2)
                if len(owner) == 3 and owner[0] == host and owner[1] != pid and not _is_alive(owner[1]):
                    shutil.rmtree(entry.path, ignore_errors=True)

    def close(self) -> None:
        """Remove an ephemeral store; others stay."""
        if self.ephemeral and self.is_ours():
            import shutil

            shutil.rmtree(self.root, ignore_errors=True)


def write_atomically(path: str, parts: Iterable[bytes], mode: int = 0o600) -> None:
    """Write `parts` under a temporary name beside `path` and rename it. Raises OSError and leaves nothing then."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f'.{name}.{os.getpid()}.{time.time_ns():x}')
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, 'wb') as file:
            file.writelines(parts)
        os.rename(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


def _read(path: str) -> bytes | None:
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError:
        return None


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _mark_used(path: str) -> None:
    """Set a file's times to now, unless they are recent: pruning goes by them."""
    try:
        if time.time() - os.stat(path).st_mtime > _USED_STEP:
            os.utime(path)
    except OSError:
        pass


def _owner_prefix() -> str:
    """Name this process beyond this host and boot: homes are shared over networks, process ids are not."""
    boot = (_read('/proc/sys/kernel/random/boot_id') or b'').decode('ascii', 'replace').strip()
    host = hashlib.sha256(f'{os.uname().nodename} {boot}'.encode()).hexdigest()[:16]
    return f'{host}-{os.getpid()}'


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        return True
    return True
