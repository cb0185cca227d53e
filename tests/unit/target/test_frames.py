# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The byte formats take back what they gave and refuse everything else."""
from __future__ import annotations

import random

import pytest

from ansible_mitogen_svc.wire import frames


def test_a_payload_comes_back_as_it_was() -> None:
    header, blobs = {'op': 'run', 'text': 'ü'}, [b'', b'\0\xff', b'x' * 1000]
    assert frames.unpack_payload(frames.pack_payload(header, blobs)) == (header, blobs)
    assert frames.unpack_payload(frames.pack_payload(header)) == (header, [])
    assert frames.unpack_header(frames.pack_payload(header, blobs)) == header


def test_frames_are_found_however_the_stream_is_cut() -> None:
    sent = [(number, bytes([number]) * (number * 37 % 300)) for number in range(50)]
    stream = b''.join(frames.pack_frame(*frame) for frame in sent)
    chance = random.Random(7)
    for _ in range(20):
        parser, found, offset = frames.FrameParser(), [], 0
        while offset < len(stream):
            size = chance.choice([1, 2, 7, 100, 5000])
            found += parser.feed(stream[offset:offset + size])
            offset += size
        assert found == sent
        assert len(parser) == 0


def test_a_reader_that_leaves_after_a_frame_finds_the_rest_the_next_time() -> None:
    parser = frames.FrameParser()
    stream = b''.join(frames.pack_frame(number, b'x' * number) for number in (1, 2, 3))
    for frame in parser.feed(stream[:-2]):
        assert frame == (1, b'x')
        break
    assert [*parser.feed(stream[-2:-1]), *parser.feed(stream[-1:])] == [(2, b'xx'), (3, b'xxx')]
    assert len(parser) == 0


def test_a_frame_above_the_limit_is_refused_when_announced_and_those_before_it_are_not_lost() -> None:
    parser = frames.FrameParser(limit=10)
    found = []
    with pytest.raises(frames.FrameError):
        for frame in parser.feed(frames.pack_frame(1, b'12345') + frames.pack_frame(2, b'12345678901')):
            found.append(frame)
    assert found == [(1, b'12345')]


@pytest.mark.parametrize('payload', [
    b'', b'\0\0', b'\0\0\0\5{}', b'\0\0\0\2[]', b'\0\0\0\2{{', b'\0\0\0\2{}extra',
    frames.pack_payload({'blobs': [1]}), frames.pack_payload({'blobs': [-1]}), frames.pack_payload({'blobs': 'x'}),
    frames.pack_payload({'blobs': [True]}), b'\0\0\0\1\xff', b'\0\1\0\0' + b'[' * 65536])
def test_a_malformed_payload_raises_frame_error_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.unpack_payload(payload)


def test_an_agent_message_names_its_zygote() -> None:
    assert frames.split_target(frames.pack_target(3, b'payload')) == (3, b'payload')
    with pytest.raises(frames.FrameError):
        frames.split_target(b'\0\0')


def test_a_manifest_has_one_id_whatever_the_order_of_its_files() -> None:
    one, two = {'a.py': 'a' * 64, 'b/c.py': 'b' * 64}, {'b/c.py': 'b' * 64, 'a.py': 'a' * 64}
    assert frames.pack_manifest(one) == frames.pack_manifest(two)
    assert frames.unpack_manifest(*frames.pack_manifest(one)) == one


@pytest.mark.parametrize('files', [{'../x': 'a' * 64}, {'/x': 'a' * 64}, {'x': 'A' * 64}, {'x': '../../etc/passwd'},
                                   {'x': 5}, {'a//b': 'a' * 64}, {'': 'a' * 64}])
def test_a_manifest_with_names_that_lead_elsewhere_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(frames.FrameError):
        frames.unpack_manifest(*frames.pack_manifest(files))
    with pytest.raises(frames.FrameError):
        frames.unpack_manifest('0' * 64, b'{}')
