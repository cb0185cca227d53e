# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Several runs of one module as one job: what travels, and what became of each.

Composed by tree_copy.py and loop_ahead.py, sent by running.py; lives in a task worker. The other end is
target/batch.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_mitogen_svc.controller.compat import copy_action
from ansible_mitogen_svc.controller.compat.copy_action import Arguments
from ansible_mitogen_svc.controller.payload import Payload
from ansible_mitogen_svc.services.answers import Answer
from ansible_mitogen_svc.wire import frames

#: Exit status, standard output, standard error.
Outcome = tuple[int, bytes, bytes]


@dataclass
class Item:
    """A run that is foreseen.

    Attributes:
        key: see `key_of`.
        arguments: of the module.
        content, place, mode: what is written where before it, and with which mode; no content for most.
    """

    key: str
    arguments: Arguments
    content: bytes | None = None
    place: str = ""
    mode: int = 0


@dataclass
class Batch:
    """A job's further items, and what became of them."""

    first: Arguments
    items: Sequence[Item]
    module: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stuck: bool = False

    def fits(self, payload: Payload) -> bool:
        """Whether the payload is core's own module, which is known to bear this."""
        source = copy_action.core_module_source(self.module)
        return payload.module == f"ansible.modules.{self.module}" and source in payload.manifest.files.values()

    def pack(self, first_blob: int) -> tuple[list[dict[str, Any]], list[bytes]]:
        """The header's `items` and the blobs they name, counted from `first_blob`."""
        packed: list[dict[str, Any]] = [{}]
        blobs: list[bytes] = []
        for item in self.items:
            entry: dict[str, Any] = {"set": self._difference(item.arguments)}
            if item.content is not None:
                put = ["put", item.place, item.mode, first_blob + len(blobs)]
                entry["steps"] = [put, ["chmod", item.place, "u+rwx"]]
                blobs.append(item.content)
            packed.append(entry)
        return packed, blobs

    def _difference(self, arguments: Arguments) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if self.first.get(name) != value}

    def take(self, answer: Outcome) -> Outcome:
        """Sort a job's outcome into those of its items, and return the first's."""
        rc, output, errors = answer
        parser = frames.FrameParser()
        own: Outcome | None = None
        done = -1
        try:
            for done, payload in parser.feed(output):
                header, blobs = frames.unpack_payload(payload)
                if "rc" not in header:
                    self.stuck = True
                elif done == 0:
                    own = int(header["rc"]), blobs[0], blobs[1]
                else:
                    self.outcomes[self.items[done - 1].key] = int(header["rc"]), blobs[0], blobs[1]
        except (frames.FrameError, LookupError, TypeError, ValueError):
            return 1, output, errors
        if rc and done < len(self.items):
            # The process died: whatever it was doing ended like that.
            if own is None:
                return rc, b"", errors
            self.outcomes[self.items[done].key] = rc, b"", errors
        return own if own is not None else (rc or 1, output, errors)


def outcome_of(answer: Answer) -> Outcome:
    """rc, stdout and stderr as a shell would give them for the job."""
    stdout, stderr = answer.blobs
    signal = answer.header.get("signal")
    if signal:
        stderr += b"\nThe process was killed by signal %d%s.\n" % (signal, b" (out of memory?)" if signal == 9 else b"")
        return 128 + int(signal), stdout, stderr
    return int(answer.header["rc"]), stdout, stderr


def simple_result(outcome: Outcome) -> dict[str, Any] | None:
    """A result that core would take as it is; None when core has to look at it."""
    rc, output = outcome[:2]
    try:
        result = json.loads(output) if not rc else None
    except ValueError:
        return None
    if not isinstance(result, dict) or "__ansible_type" in output.decode("utf-8", "replace"):
        return None
    return None if any(result.get(name) for name in ("failed", "warnings", "deprecations", "exception")) else result
