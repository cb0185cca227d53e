# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Two jobs in one question: the second is done when the first's result is what the asker expected (docs/protocol.md).

Called by the zygote (zygote.py, jobs.py), in its only thread. The asker is core's copy action on the controller, which
looks at a file's state and runs the module that fits it: the state is looked at here, so nothing is done that it would
not do.
"""

from __future__ import annotations

import json

from ansible_mitogen_svc.target import batch
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

RESULT_LIMIT = 64 * 1024
"""Bytes of a first job's result; a longer one is nothing that is waited for here."""


class Pair:
    """What stands behind a job: belongs to the first one until that is answered, then to the second."""

    def __init__(self, condition: Mapping[str, Any], second: bytes) -> None:
        """`second` is the payload of a `run`. Raises KeyError, FrameError."""
        self._condition = {'sha1': str(condition['sha1']), 'same': bool(condition['same'])}
        self.second = second
        self.header = frames.unpack_header(second)
        self._first: tuple[Mapping[str, Any], Sequence[bytes]] | None = None

    def goes_on(self, answer: Mapping[str, Any], blobs: Sequence[bytes]) -> bool:
        """Take a job's answer; say whether the second job is to be done now."""
        if self._first is not None or answer.get('rc') != 0 or not blobs or len(blobs[0]) > RESULT_LIMIT:
            return False
        if not batch.is_simple(blobs[0]) or self._is_same(json.loads(blobs[0]).get('stat')) != self._condition['same']:
            return False
        self._first = answer, blobs
        return True

    def _is_same(self, status: Any) -> bool | None:
        """Say whether there is a file with the expected content; None when that is not the question."""
        if not isinstance(status, dict) or status.get('isdir'):
            return None
        return bool(status.get('exists')) and status.get('checksum') == self._condition['sha1']

    def joined(self, answer: Mapping[str, Any], blobs: Sequence[bytes]) -> tuple[dict[str, Any], Sequence[bytes]]:
        """Return the pair's answer, made of the one to its latest job."""
        if self._first is None:
            return dict(answer), blobs
        return dict(self._first[0], second=dict(answer)), [*self._first[1], *blobs]
