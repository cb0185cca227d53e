# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What zygotes and agents answer, and what their refusals become here. Used wherever they are asked, in any thread.

The formats are those of docs/protocol.md. A target is not trusted: an answer of another shape loses the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_mitogen_svc.services.link import TargetLost
from ansible_mitogen_svc.wire import frames


@dataclass(frozen=True)
class Answer:
    """What a zygote or the agent answered."""

    header: Mapping[str, Any]
    blobs: Sequence[Any] = field(repr=False)


class ZygoteLost(Exception):
    """A zygote died with the call; the message says how.

    Attributes:
        first: of two zygotes that were to act one after the other it was the first, and the second heard of nothing.
    """

    first = False


class ZygoteGone(ZygoteLost):
    """A zygote had died before the call reached it: the call can be made again."""


class JobRefused(Exception):
    """The zygote could not start a job.

    Attributes:
        kind: type of the error, as docs/protocol.md names them; ``step`` for a step that failed.
        failed_step: index of that step, or None.
    """

    def __init__(self, message: str, kind: str, failed_step: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.failed_step = failed_step


def read_answer(data: bytes, copy: bool = True) -> Answer:
    """What an answer says.

    :param copy: its blobs are bytes of their own; else views of `data`, for who is done with them at once.
    :raises TargetLost: it is no answer.
    :raises ZygoteLost: the zygote died; ZygoteGone when the question never reached it.
    :raises JobRefused: it says why something was not done.
    """
    try:
        answer = Answer(*(frames.unpack_payload(data) if copy else frames.view_payload(data)))
        header = answer.header
        if "lost" in header:
            raise _lost(header)
        if "failed_step" in header:
            raise JobRefused(str(header["error"].get("message")), "step", int(header["failed_step"]))
        if "error" in header:
            kind = str(header["error"].get("type"))
            raise JobRefused(f"{kind}: {header['error'].get('message')}", kind)
    except (frames.FrameError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise TargetLost(f"malformed answer of the agent: {error}") from error
    return answer


def read_second(answer: Answer) -> tuple[Answer, Answer | None]:
    """What an answer to a pair says of the first run, and of the second; None when that was not begun.

    :raises TargetLost: it is no answer.
    :raises JobRefused: the second's process was lost after it had begun.
    """
    header = dict(answer.header)
    second = header.pop("second", None)
    if second is None:
        return answer, None
    if not isinstance(second, dict) or len(answer.blobs) not in (2, 4):
        raise TargetLost("malformed answer of the agent: a pair's second is no answer")
    first = Answer(header, answer.blobs[:2])
    if "rc" in second and len(answer.blobs) == 4:
        return first, Answer(second, answer.blobs[2:])
    error = second.get("error")
    if isinstance(error, dict) and error.get("type") == "ChildLost":
        raise JobRefused(f"ChildLost: {error.get('message')}", "ChildLost")
    return first, None


def _lost(header: Mapping[str, Any]) -> ZygoteLost:
    first = bool(header.get("first"))
    # That the second of two never heard of it does not make it repeatable: the first may have begun.
    lost = (ZygoteGone if header.get("undelivered") and not first else ZygoteLost)(_how_it_died(header))
    lost.first = first
    return lost


def _how_it_died(header: Mapping[str, Any]) -> str:
    if header.get("signal"):
        how = f"was killed by signal {header['signal']}"
    elif header.get("rc") is not None:
        how = f"exited with status {header['rc']}"
    else:
        how = "ended"
    stderr = str(header.get("stderr") or "").strip()
    return f"the worker process on the target (zygote) {how}" + (f": {stderr}" if stderr else "")
