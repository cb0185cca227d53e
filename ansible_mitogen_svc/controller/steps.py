# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""File operations of a task that nobody waits for: they travel with its next job (docs/protocol.md).

Collected by the mixins in a task worker, one list per connection object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_mitogen_svc.controller.target import Before, Zygote
from ansible_mitogen_svc.wire import frames


@dataclass
class Steps:
    """File operations that travel with the next job (docs/protocol.md), and their data."""

    steps: list[list[Any]] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    #: Bytes of `blobs`.
    size: int = 0

    def add(self, *step: Any, data: bytes | None = None) -> None:
        """Append a step; `data` becomes a blob whose index ends the step."""
        if data is None:
            self.steps.append(list(step))
        else:
            self.steps.append([*step, len(self.blobs)])
            self.blobs.append(data)
            self.size += len(data)

    def take(self, first_blob: int) -> tuple[list[list[Any]], list[bytes]]:
        """All steps, with blob indexes counted from `first_blob`, and their blobs; nothing is left."""
        steps = [[*step[:-1], step[-1] + first_blob] if step[0] == "put" else step for step in self.steps]
        blobs = self.blobs
        self.steps, self.blobs, self.size = [], [], 0
        return steps, blobs

    def copy(self) -> Steps:
        """The same steps, to be taken by themselves."""
        return Steps(list(self.steps), list(self.blobs), self.size)

    def joined(self, later: Steps) -> Steps:
        """These, then `later` ones."""
        steps, blobs = later.copy().take(first_blob=len(self.blobs))
        return Steps([*self.steps, *steps], [*self.blobs, *blobs], self.size + later.size)

    def before(self, number: int) -> Before | None:
        """A question to zygote `number` that has them done; None when there are none. Nothing is left."""
        if not self.steps:
            return None
        steps, blobs = self.take(first_blob=0)
        return number, frames.pack_payload({"op": "steps", "steps": steps}, blobs)


@dataclass(frozen=True)
class OwnDirectory:
    """A task's temporary directory that belongs to a become user, who writes what is put there.

    Attributes:
        path: ends with a slash.
        zygote: of that user.
    """

    path: str
    zygote: Zygote

    def has(self, path: str) -> bool:
        """Whether `path` is the directory, or lies in it."""
        return f"{path}/".startswith(self.path)


def makes_directory(failed: int | None, header: Mapping[str, Any], before: Before | None) -> bool:
    """Whether the step that failed is the one that makes a task's temporary directory.

    :param failed: its index.
    :param header: of the job that the steps came with.
    :param before: payload of the steps that another zygote was to take before the job.
    """
    if failed is None:
        return False
    steps = header["steps"] if before is None else frames.unpack_payload(before[1])[0]["steps"]
    return steps[failed][0] in ("mkdir", "tmpdir")
