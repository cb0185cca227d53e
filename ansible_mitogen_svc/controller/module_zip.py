# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Module zips, written and read without packing or unpacking the same file twice.

Used in task workers of any kind and in threads beside them: `add` by compat/module_walk.py while core packs a module,
`contents` by payload.py when the zip is split. Two modules share nine tenths of their files, and zlib takes longer
than everything else that is done with them. What is remembered is a function of the bytes alone.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
import zlib
from collections.abc import Iterator

#: Bytes of file content remembered; all is forgotten when there are more, which no ordinary run comes to.
REMEMBERED = 32 << 20
_LOCAL_HEADER = 30
_OWNER_MAY_READ = 0o600 << 16


class _Memory:
    """Packed form by content, and content with its sha256 by packed form. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packed: dict[bytes, bytes] = {}
        self._content: dict[bytes, tuple[bytes, str]] = {}
        self._size = 0

    def pack(self, content: bytes) -> bytes:
        """What `zipfile` would write for a deflated file of its default level."""
        packed = self._packed.get(content)
        if packed is None:
            squeezer = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -15)
            packed = squeezer.compress(content) + squeezer.flush()
            self._keep(content, packed)
        return packed

    def unpack(self, packed: bytes) -> tuple[bytes, str] | None:
        """Content and sha256 (hex) of what was seen packed before."""
        return self._content.get(packed)

    def digest(self, content: bytes) -> str:
        """sha256 (hex) of a content."""
        packed = self.pack(content)
        found = self._content.get(packed) or self.learn(packed, content)
        return found[1]

    def learn(self, packed: bytes, content: bytes) -> tuple[bytes, str]:
        """Remember what a packed file holds."""
        return self._keep(content, packed)

    def _keep(self, content: bytes, packed: bytes) -> tuple[bytes, str]:
        entry = (content, hashlib.sha256(content).hexdigest())
        with self._lock:
            if self._size > REMEMBERED:
                # Readers hold no lock: they get other dictionaries, not emptied ones.
                self._packed, self._content, self._size = {}, {}, 0
            self._packed[content] = packed
            self._content[packed] = entry
            self._size += len(content) + len(packed)
        return entry


_memory = _Memory()


def add(archive: zipfile.ZipFile | Unzipped, info: zipfile.ZipInfo, content: bytes) -> None:
    """`archive.writestr(info, content)`, with the packing done once per content."""
    if isinstance(archive, Unzipped):
        archive.writestr(info, content)
        return
    file = archive.fp
    if info.compress_type != zipfile.ZIP_DEFLATED or archive.compresslevel is not None or file is None or not content:
        archive.writestr(info, content)
        return
    packed = _memory.pack(content)
    info.file_size, info.compress_size, info.CRC = len(content), len(packed), zlib.crc32(content)
    info.external_attr = info.external_attr or _OWNER_MAY_READ
    info.header_offset = file.tell()
    file.write(info.FileHeader(zip64=False))
    file.write(packed)
    # What ZipFile.writestr leaves behind; `close` writes the directory from it, at this place.
    archive.start_dir = file.tell()  # type: ignore[attr-defined]
    archive._didModify = True  # type: ignore[attr-defined]
    archive.filelist.append(info)
    archive.NameToInfo[info.filename] = info


class Unzipped:
    """Stands in for an archive where only the files matter: what core and `add` write, by path."""

    compression = zipfile.ZIP_DEFLATED

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def writestr(self, info: zipfile.ZipInfo, content: bytes) -> None:
        """As ``ZipFile.writestr``."""
        self.files[info.filename] = content

    def namelist(self) -> list[str]:
        """As ``ZipFile.namelist``."""
        return list(self.files)


def digest(content: bytes) -> str:
    """sha256 (hex) of a file that is about to be packed; packs it, so that this is done as well."""
    return _memory.digest(content)


def contents(data: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Path, content and sha256 (hex) of each file in a zip.

    :raises zipfile.BadZipFile: `data` is none.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if info.filename.endswith("/"):
                continue
            if info.compress_type != zipfile.ZIP_DEFLATED:
                content = archive.read(info)
                yield info.filename, content, hashlib.sha256(content).hexdigest()
                continue
            packed = _packed_bytes(data, info)
            yield info.filename, *(_memory.unpack(packed) or _memory.learn(packed, archive.read(info)))


def _packed_bytes(data: bytes, info: zipfile.ZipInfo) -> bytes:
    start = info.header_offset + _LOCAL_HEADER
    name, extra = (int.from_bytes(data[start - 4 + at : start - 2 + at], "little") for at in (0, 2))
    return data[start + name + extra : start + name + extra + info.compress_size]
