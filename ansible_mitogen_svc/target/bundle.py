# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Byte code of one manifest's files in one checked piece, and the module zip which stands for the same files.

Built by builders, read by zygotes (to verify) and by nurseries and job children (to import from). A bundle holds a
body per file: files the base set already gave are left out, and each body is unmarshalled only when it is imported.
Bundles come from a 0700 directory of the same user or from a builder over a private descriptor, never from the wire.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import struct
import zlib

from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import CodeType

_HEAD = struct.Struct('!32sI')

_DOS_DATE = (1 << 5) | 1  # 1980-01-01: the zip of a manifest must have the same bytes whenever it is made
_LOCAL = struct.Struct('<4s5H3I2H')
_CENTRAL = struct.Struct('<4s6H3I5H2I')
_END = struct.Struct('<4s4H2IH')


class Bundle:
    """The verified content of a bundle file. Immutable."""

    __slots__ = ('_bodies', '_index', 'files', 'identity', 'raw', 'zip_digest')

    def __init__(self, identity: str, raw: bytes, header: dict[str, object], bodies: memoryview) -> None:
        self.identity = identity
        self.raw = raw
        """The file as it is, for handing it on."""
        self.files: dict[str, str] = header['manifest']  # type: ignore[assignment]
        """The whole manifest: `{path in the zip: sha256 hex}`."""
        self.zip_digest: str = header['zip']  # type: ignore[assignment]
        """sha256 hex of the module zip that was written with this bundle."""
        self._index: dict[str, tuple[int, int]] = header['bodies']  # type: ignore[assignment]
        self._bodies = bodies

    def __contains__(self, path: str) -> bool:
        return self._index.get(path, (0, 0))[1] > 0

    def __len__(self) -> int:
        """Size in bytes."""
        return len(self.raw)

    def paths(self) -> Iterable[str]:
        """The files whose byte code is here."""
        return [path for path, (_, length) in self._index.items() if length]

    def code(self, path: str) -> CodeType:
        """Return a new code object of one of `paths()`. Raises KeyError."""
        offset, length = self._index[path]
        code: CodeType = marshal.loads(self._bodies[offset:offset + length])
        return code

    def covers(self, preloaded: Mapping[str, str | None]) -> bool:
        """Say whether, beside these preloaded files, the code of every compilable file is here."""
        return all(path in self._index or preloaded.get(path) == digest
                   for path, digest in self.files.items() if path.endswith('.py'))


def pack_bundle(files: Mapping[str, str], zip_digest: str, bodies: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a bundle; `bodies` is `{path: marshalled code}`, empty for a file that does not compile."""
    index = {}
    offset = 0
    for path, body in bodies.items():
        index[path] = (offset, len(body))
        offset += len(body)
    header = {'magic': importlib.util.MAGIC_NUMBER.hex(), 'manifest': files, 'zip': zip_digest, 'bodies': index}
    text = json.dumps(header, separators=(',', ':')).encode()
    rest = b''.join((text, *bodies.values()))
    return _HEAD.pack(hashlib.sha256(rest).digest(), len(text)) + rest


def open_bundle(identity: str, data: bytes | None) -> Bundle | None:
    """Return the bundle of a manifest, or None when the bytes are not whole or not for this interpreter."""
    if data is None or len(data) < _HEAD.size:
        return None
    digest, length = _HEAD.unpack_from(data)
    view = memoryview(data)
    if hashlib.sha256(view[_HEAD.size:]).digest() != digest:
        return None
    try:
        header = json.loads(bytes(view[_HEAD.size:_HEAD.size + length]))
        if header['magic'] != importlib.util.MAGIC_NUMBER.hex():
            return None
        if frames.pack_manifest(header['manifest'])[0] != identity:
            return None
        return Bundle(identity, data, header, view[_HEAD.size + length:])
    except (ValueError, KeyError, TypeError):
        return None


def pack_zip(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip file of stored (not compressed) entries with fixed dates.

    Stored, because a zip is made for nearly every new module while a job waits, and read in warm runs by nobody.
    """
    body: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for path, data in entries:
        name = path.encode()
        checksum, size = zlib.crc32(data), len(data)
        local = _LOCAL.pack(b'PK\3\4', 20, 0x800, 0, 0, _DOS_DATE, checksum, size, size, len(name), 0)
        directory.append(_CENTRAL.pack(b'PK\1\2', 0x314, 20, 0x800, 0, 0, _DOS_DATE, checksum, size, size,
                                       len(name), 0, 0, 0, 0, 0o100600 << 16, offset) + name)
        body += (local, name, data)
        offset += len(local) + len(name) + size
    central = b''.join(directory)
    end = _END.pack(b'PK\5\6', 0, 0, len(directory), len(directory), len(central), offset, 0)
    return b''.join((*body, central, end))
