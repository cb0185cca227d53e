# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The three kinds of worker, and what is decided about a task. Plain values, used everywhere in ``workers``."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class WorkerKind(enum.Enum):
    """Where a task runs. The values are the names used in statistics and messages."""

    INLINE = "inline"
    THREAD = "thread"
    FORK = "fork"


@dataclass(frozen=True)
class Decision:
    """`kind` of worker for one task on one host; `reason`: a word, or ``what:which`` (``connection:winrm``)."""

    kind: WorkerKind
    reason: str
