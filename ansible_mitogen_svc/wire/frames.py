# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The bytes of docs/protocol.md: payloads, agent messages, zygote frames and manifests.

Called by the controller's sessions, by the agent (broker thread of the mitogen child) and by the zygote.
Nothing here does I/O or keeps state beyond a FrameParser's unread bytes, so every function may run in any thread.
Everything received is treated as hostile: a malformed input raises FrameError and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import struct

# Importing typing costs a target milliseconds; type checkers take any name TYPE_CHECKING for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Dict, Union

    Buffer = Union[bytes, bytearray, memoryview]
    Header = Dict[str, Any]

AGENT_HANDLE = 7000
"""Mitogen handle on which an agent takes its messages."""

PROTOCOL = 1
"""Version sent in a zygote's hello."""

MAX_PAYLOAD = 1 << 30
"""Largest payload of one zygote frame, in bytes; a bigger one ends the stream."""

QUESTION = 0x80000000
"""Call ids from here up are questions of a zygote to its agent."""

_LENGTH = struct.Struct('!I')
_FRAME = struct.Struct('!II')


class FrameError(ValueError):
    """Bytes that are not what docs/protocol.md describes, or are larger than allowed."""


def pack_payload(header: Mapping[str, Any], blobs: Sequence[Buffer] = ()) -> bytes:
    """Return one payload; `header["blobs"]` is added here and must not be given."""
    return b''.join(payload_pieces(header, blobs))


def payload_pieces(header: Mapping[str, Any], blobs: Sequence[Buffer] = ()) -> list[Buffer]:
    """Return what one payload is made of, blobs as they are."""
    if blobs:
        header = dict(header, blobs=[len(blob) for blob in blobs])
    text = json.dumps(header, separators=(',', ':')).encode()
    return [_LENGTH.pack(len(text)) + text, *blobs]


def unpack_payload(payload: Buffer) -> tuple[Header, list[bytes]]:
    """Split a payload into its header (without `blobs`) and its blobs. Raises FrameError."""
    header, blobs = view_payload(payload)
    return header, [bytes(blob) for blob in blobs]


def view_payload(payload: Buffer) -> tuple[Header, list[memoryview]]:
    """As `unpack_payload`, with views of the payload for blobs: nothing is copied."""
    header, offset, lengths = _open_payload(payload)
    view = memoryview(payload)
    blobs = []
    for length in lengths:
        blobs.append(view[offset:offset + length])
        offset += length
    return header, blobs


def unpack_header(payload: Buffer) -> Header:
    """Return a payload's header alone, without copying its blobs. Raises FrameError."""
    return _open_payload(payload)[0]


def _open_payload(payload: Buffer) -> tuple[Header, int, list[int]]:
    """Parse and check a payload's front part: (header, offset of the first blob, blob lengths)."""
    if len(payload) < _LENGTH.size:
        raise FrameError('payload ends inside its header length')
    size = _LENGTH.unpack_from(payload)[0]
    offset = _LENGTH.size + size
    if offset > len(payload):
        raise FrameError('payload ends inside its header')
    try:
        header = json.loads(bytes(memoryview(payload)[_LENGTH.size:offset]))
    except (ValueError, RecursionError) as error:
        raise FrameError(f'payload header is not JSON: {error}') from None
    if not isinstance(header, dict):
        raise FrameError('payload header is not an object')
    lengths = header.pop('blobs', [])
    if not isinstance(lengths, list) or not all(type(item) is int and item >= 0 for item in lengths):
        raise FrameError('blob lengths are not a list of sizes')
    if offset + sum(lengths) != len(payload):
        raise FrameError('blob lengths do not add up to the payload')
    return header, offset, lengths


def check_length(length: int) -> None:
    """Raise FrameError for a payload of more than MAX_PAYLOAD bytes."""
    if length > MAX_PAYLOAD:
        raise FrameError(f'payload of {length} bytes is larger than {MAX_PAYLOAD}')


def frame_header(length: int, call_id: int) -> bytes:
    """Return what stands before a payload of `length` bytes. Raises FrameError above MAX_PAYLOAD."""
    check_length(length)
    return _FRAME.pack(length, call_id)


def pack_frame(call_id: int, payload: Buffer) -> bytes:
    """Return one zygote frame. Raises FrameError when the payload is larger than MAX_PAYLOAD."""
    return b''.join((frame_header(len(payload), call_id), payload))


class FrameParser:
    """Incremental parser of one direction of a zygote's stream. Owned by one thread.

    What came is kept as the pieces it came in and joined once a frame is complete: nothing is ever resized, so no view
    of it that outlives its use (in the frames of an exception, say) can make receiving fail with a BufferError.
    """

    def __init__(self, limit: int = MAX_PAYLOAD) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._length = 0
        self._needed = _FRAME.size
        """Bytes that must be there before it makes sense to look."""

    def __len__(self) -> int:
        """Bytes received and not yet returned as a frame."""
        return self._length

    def feed(self, data: Buffer) -> Iterator[tuple[int, bytes]]:
        """Take bytes and yield each (call id, payload) they complete.

        Raises FrameError at the announcement of a payload above the limit, after the frames before it.
        """
        self._pieces.append(bytes(data))
        self._length += len(data)
        if self._length < self._needed:
            return
        received, offset = b''.join(self._pieces), 0
        self._needed = _FRAME.size
        try:
            while len(received) - offset >= _FRAME.size:
                length, call_id = _FRAME.unpack_from(received, offset)
                if length > self._limit:
                    raise FrameError(f'payload of {length} bytes is larger than {self._limit}')
                end = offset + _FRAME.size + length
                if end > len(received):
                    self._needed = end - offset
                    break
                payload = received[offset + _FRAME.size:end]
                offset = end
                yield call_id, payload
        finally:
            self._pieces = [received[offset:]]
            self._length = len(self._pieces[0])


def pack_target(zygote: int, payload: Buffer) -> bytes:
    """Return the data of a mitogen message to AGENT_HANDLE; zygote 0 is the agent itself."""
    return b''.join((_LENGTH.pack(zygote), payload))


def target_pieces(zygote: int, pieces: Sequence[Buffer]) -> list[Buffer]:
    """Return what `pack_target` would join, of what a payload is made of."""
    return [_LENGTH.pack(zygote), *pieces]


def split_target(data: Buffer) -> tuple[int, memoryview]:
    """Return (zygote number, a view of the payload). Raises FrameError."""
    if len(data) < _LENGTH.size:
        raise FrameError('agent message ends inside its zygote number')
    return _LENGTH.unpack_from(data)[0], memoryview(data)[_LENGTH.size:]


def pack_manifest(files: Mapping[str, str]) -> tuple[str, bytes]:
    """Return (id, bytes) of the manifest of `{path in the module zip: sha256 hex}`."""
    text = json.dumps(dict(files), sort_keys=True, separators=(',', ':')).encode()
    return hashlib.sha256(text).hexdigest(), text


def unpack_manifest(identity: str, text: Buffer) -> dict[str, str]:
    """Return the files of a manifest after comparing its bytes with its id. Raises FrameError."""
    if hashlib.sha256(text).hexdigest() != identity:
        raise FrameError(f'manifest does not have the id {identity}')
    try:
        files = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise FrameError(f'manifest is not JSON: {error}') from None
    if not isinstance(files, dict) or not all(_is_file(path, digest) for path, digest in files.items()):
        raise FrameError('manifest is not an object of paths and sha256 hex')
    return files


def _is_file(path: str, digest: object) -> bool:
    """Say whether a manifest entry is a plain relative path and a digest (both end up in file names)."""
    parts = path.split('/')
    return is_sha256(digest) and '' not in parts and '.' not in parts and '..' not in parts and '\0' not in path


def is_sha256(text: object) -> bool:
    """Say whether something is the lower case hex of a sha256, safe as a file name."""
    return isinstance(text, str) and len(text) == 64 and not text.strip('0123456789abcdef')


def missing(wanted: Iterable[str], have: Mapping[str, object]) -> list[str]:
    """Return the wanted digests which are not in `have`, each once, in order."""
    return [digest for digest in dict.fromkeys(wanted) if digest not in have]
