# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Copies of tasks for workers that share memory with the strategy. Main thread makes them, workers use and change them.

Core's worker processes change their copy of the task, its loop control and its parent blocks as they please.
Here each worker gets objects of its own for all of these, made before the strategy touches the task again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_mitogen_svc.controller.compat.containers import own_containers

#: Fields that the task goes on to change where they are, as may callbacks: its action takes arguments out and puts some
#: in, and core's actions add to the environment while they start an asynchronous job.
CHANGING = ("args", "environment")


def shallow_clone(original: Any) -> Any:
    """A second object of the same class with the same attributes. The class's constructor is not called."""
    clone = object.__new__(type(original))
    clone.__dict__.update(original.__dict__)
    return clone


def clone_parents(parent: Any) -> Any:
    """`parent` and everything above it, cloned: validating a task marks its blocks as validated, for one host."""
    if parent is None:
        return None
    clone = shallow_clone(parent)
    above = clone.__dict__.get("_parent")
    if above is not None:
        clone._parent = clone_parents(above)
    return clone


def worker_copy(task: Any) -> Any:
    """A copy of `task` that a worker may validate, squash and change."""
    own = task.copy(exclude_parent=True, exclude_tasks=True)
    own._parent = clone_parents(task._parent)
    return own


def reported_copy(task: Any, original: Any) -> Any:
    """`task`, as a worker leaves it, in the state core's results thread would have made from the wire.

    :param original: the task the strategy queued; its parents are the ones the result must have.
    """
    reported = shallow_clone(task)
    if not (task._squashed or task._finalized):
        # The copy for an item that was skipped, say: core adds what its blocks say to what it has of them already.
        reported.from_attrs(task.dump_attrs())
    for name in CHANGING:
        setattr(reported, f"_{name}", own_containers(getattr(reported, f"_{name}")))
    if task._uuid == original._uuid:
        reported._parent = original._parent
    reported._finalized = reported._squashed = True
    return reported


def reported_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What core dumped of a task, by the names of its fields, with containers of its own where the task goes on."""
    return {**fields, **{name: own_containers(fields[name]) for name in CHANGING}}
