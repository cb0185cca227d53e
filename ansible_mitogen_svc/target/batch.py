# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Several runs of one module in one process, for modules of core's that are known to bear it.

Called by child.py in a job's process, for a `run` with `items` (docs/protocol.md); the controller says which modules.

Theory of operation
1. Each item is the first one's parameters with some of them set anew, after steps of its own. Core's `run_module` runs
   it as it would run any job; only the process, and what the module imported, are the same.
2. What an item prints is taken from a file that is emptied after it, and is written to the job's standard output as a
   frame of its own before the next item begins: when the process dies, what was done is known.
3. The first item that does not simply succeed is the last: an action stops there, and warnings that core collects in a
   process would be repeated by the items after it.
"""

from __future__ import annotations

import json
import os
import sys

from ansible_mitogen_svc.target import process, steps
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


def run_items(items: Sequence[Mapping[str, Any]], blobs: Sequence[bytes], run: Callable[[bytes], int]) -> int:
    """Run items until one does not simply succeed; return 0. `run` takes parameters and returns an exit code."""
    common = json.loads(blobs[0])
    answers = os.dup(1)
    output, errors = _Capture(1), _Capture(2)
    for index, item in enumerate(items):
        try:
            steps.run_steps(item.get('steps') or (), blobs)
        except steps.StepFailed as failure:
            _write(answers, frames.pack_frame(index, frames.pack_payload(failure.reply)))
            break
        rc = run(_parameters(common, item))
        printed = output.take(), errors.take()
        _write(answers, frames.pack_frame(index, frames.pack_payload({'rc': rc}, printed)))
        if rc or not is_simple(printed[0]):
            break
    os.dup2(answers, 1)
    return 0


def _parameters(common: Mapping[str, Any], item: Mapping[str, Any]) -> bytes:
    arguments = dict(common['ANSIBLE_MODULE_ARGS'], **item.get('set', {}))
    return json.dumps(dict(common, ANSIBLE_MODULE_ARGS=arguments)).encode()


def is_simple(printed: bytes) -> bool:
    """Say whether a module's output is a success and nothing beside it."""
    try:
        result = json.loads(printed)
    except ValueError:
        return False
    return isinstance(result, dict) and not any(
        result.get(name) for name in ('failed', 'warnings', 'deprecations', 'exception'))


class _Capture:
    """A standard stream's descriptor, made to point to a file that can be emptied."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stream = sys.stdout if descriptor == 1 else sys.stderr
        scratch = process.anonymous_file()
        os.dup2(scratch, descriptor)
        os.close(scratch)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        self._stream.flush()
        data = process.read_whole(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return data


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]
