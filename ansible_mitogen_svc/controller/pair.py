# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Two module runs of an action that are sent as one question (docs/protocol.md, `pair`).

Used by the connection (connection.py) in a task worker, for an action that foresees its next run (one_trip.py).

Theory of operation
1. The first run arrives at the connection with a `Sequel`. It is made ready and held, and the sequel has core compose
   the second, which arrives while the first is held: both are sent.
2. Whatever keeps the second from being sent, or from being run, is `NotSent` to who composed it; the first is then
   sent alone if it was not.
3. What went wrong on the way is raised to who asked for the first, as if there had been no second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ansible_mitogen_svc.controller.identity import CodeRefused
from ansible_mitogen_svc.controller.payload import Payload
from ansible_mitogen_svc.controller.steps import Steps
from ansible_mitogen_svc.controller.target import Before, Target, Zygote
from ansible_mitogen_svc.services.answers import Answer, ZygoteGone, read_second
from ansible_mitogen_svc.wire import frames


class NotSent(Exception):
    """A run that was composed ahead was not made."""


@dataclass(frozen=True)
class Sequel:
    """What may follow a run.

    Attributes:
        condition: what the first's result must be, see docs/protocol.md.
        compose: has core compose the second run.
    """

    condition: Mapping[str, Any]
    compose: Callable[[], None]


class Call(Protocol):
    """`AcceleratedConnection.svc_call`."""

    def __call__(  # noqa: D102
        self,
        target: Target,
        zygote: Zygote,
        header: dict[str, Any],
        blobs: list[bytes],
        before: Before | None = None,
        pair: tuple[Mapping[str, Any], bytes] | None = None,
    ) -> Answer: ...


@dataclass
class HeldRun:
    """A run that waits for its second.

    Attributes:
        steps: that come before it, and `writer`, who does them.
        payload: the module of the run, when it is one.
        delivered: it was sent; else its answer was known.
        answer, failure: what became of it, once it was sent.
    """

    target: Target
    zygote: Zygote
    header: dict[str, Any]
    blobs: list[bytes]
    steps: Steps
    writer: int
    condition: Mapping[str, Any]
    payload: Payload | None = None
    delivered: bool = True
    answer: Answer | None = None
    failure: Exception | None = None

    def send(self, call: Call, zygote: Zygote, header: dict[str, Any], blobs: list[bytes], steps: Steps) -> Answer:
        """Send both.

        :param header, blobs: of the second run.
        :param steps: that come before the second; done in any case where they are another zygote's.
        :returns: the second's answer.
        :raises NotSent: it was not run.
        """
        if zygote.number != self.zygote.number:
            raise NotSent
        try:
            own, before = self.steps.copy(), None
            if zygote.number == self.writer:
                self.header["steps"], data = own.take(first_blob=len(self.blobs))
                header["steps"], more = steps.take(first_blob=len(blobs))
            else:
                before, data, more = own.joined(steps).before(self.writer), [], []
            second = frames.pack_payload(header, [*blobs, *more])
            both = call(self.target, zygote, self.header, [*self.blobs, *data], before, (self.condition, second))
            self.answer, answer = read_second(both)
        except Exception as error:
            self.failure = error
            raise NotSent from None
        if answer is None:
            raise NotSent
        return answer

    def have_answer(self, answer: Answer) -> None:
        """The run need not be sent."""
        self.answer, self.delivered = answer, False

    def steps_left(self) -> Steps:
        """The steps that are still to be done, and may be done: where nothing was sent, or nobody was there."""
        answered = self.answer is not None and self.delivered
        # Another zygote's were done before this one could refuse the run.
        not_begun = isinstance(self.failure, (ZygoteGone, CodeRefused)) and self.zygote.number == self.writer
        failed = self.failure is not None and not not_begun
        return Steps() if answered or failed else self.steps

    def outcome(self) -> Answer | None:
        """What became of the run; None when it was not sent.

        :raises Exception: what sending it raised.
        """
        if self.failure is not None:
            raise self.failure
        return self.answer
