# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Messages with much data in them: put together once, where mitogen would copy the data three times.

Used by the controller's `Link` and by the agent for everything they send of a file, in the thread that has the data.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Union

    Buffer = Union[bytes, bytearray, memoryview]


class InPieces:
    """Mixin before mitogen's `Message`: `data` stays empty, and what is written is made of `pieces` at once.

    What a full pipe does not take is cut off a view, not copied.
    """

    HEADER_FMT: str
    _packed: memoryview

    def put_together(self, pieces: Sequence[Buffer]) -> None:
        """Make the message of its other attributes, which do not change any more, and of its data."""
        message: Any = self
        length = sum(map(len, pieces))
        header = struct.pack(
            self.HEADER_FMT, message.enc, message.dst_id, message.src_id, message.auth_id, message.handle,
            message.reply_to or 0, length)
        self._packed = memoryview(b''.join((header, *pieces)))

    def pack(self) -> memoryview:
        """Return what is written to the stream; mitogen's `_send` calls it."""
        return self._packed
