# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What is sent in pieces is what mitogen would make of the whole."""

from __future__ import annotations

from typing import Any

import mitogen.core

from ansible_mitogen_svc.services.link import Data, Link, Parcel
from ansible_mitogen_svc.target import zygote_stream
from ansible_mitogen_svc.wire import frames

HEADER = {"op": "part", "transfer": 5}
DATA = bytes(range(256)) * 4096


def sent(data: Data) -> mitogen.core.Message:
    """The message that a link makes of something."""
    found: list[mitogen.core.Message] = []
    router: Any = type("Router", (), {"route": staticmethod(found.append)})
    Link(router).tell(7, data)
    return found[0]


def test_a_parcel_is_the_message_that_its_pieces_make_together() -> None:
    whole = sent(frames.pack_target(3, frames.pack_payload(HEADER, [DATA])))
    pieces = sent(frames.target_pieces(3, frames.payload_pieces(HEADER, [DATA])))
    assert isinstance(pieces, Parcel) and not isinstance(whole, Parcel)
    assert isinstance(pieces.pack(), memoryview)
    assert bytes(pieces.pack()) == whole.pack()


def test_an_agent_s_parcel_is_its_answer() -> None:
    routed: list[mitogen.core.Message] = []
    router: Any = type("Router", (), {"_async_route": staticmethod(routed.append)})
    question = mitogen.core.Message(dst_id=1, src_id=9, handle=7000, reply_to=4711)
    caller = zygote_stream.Caller(router, question)
    caller.answer(frames.pack_payload(HEADER, [DATA]))
    assert bytes(caller.parcel(frames.payload_pieces(HEADER, [DATA])).pack()) == routed[0].pack()


def test_views_of_a_payload_are_its_blobs_and_no_copies() -> None:
    payload = frames.pack_payload(HEADER, [b"one", DATA])
    header, blobs = frames.view_payload(payload)
    assert (header, [bytes(blob) for blob in blobs]) == frames.unpack_payload(payload)
    assert all(isinstance(blob, memoryview) and blob.obj is payload for blob in blobs)
