# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which mixins stand in front of an action plugin, and where actions are given them.

An action's class is the plugin's own with `AcceleratedAction` in front, and further mixins for what copies files, when
its connection is an accelerated one. Used by the executor, in a task worker.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable
from typing import Any, cast

from ansible_mitogen_svc.controller.action import AcceleratedAction
from ansible_mitogen_svc.controller.compat import copied_files, fetched_files
from ansible_mitogen_svc.controller.compat.copy_action import is_core_copy
from ansible_mitogen_svc.controller.compat.remote_stat import LeanStatAction, reads_little_of_stat
from ansible_mitogen_svc.controller.connection import AcceleratedConnection
from ansible_mitogen_svc.controller.one_trip import OneTripCopyAction
from ansible_mitogen_svc.controller.tree_copy import TreeCopyAction


@functools.cache
def _accelerated_class(base: Hashable) -> type[Any]:
    assert isinstance(base, type)
    mixins: list[type[Any]] = [TreeCopyAction] if is_core_copy(base) else []
    if reads_little_of_stat(base):
        # What is known to the last line may be foreseen one step.
        mixins += [OneTripCopyAction, LeanStatAction] if mixins else [LeanStatAction]
        if base.__module__.rpartition(".")[2] == "fetch":
            fetched_files.install(base)
        elif base.__module__.rpartition(".")[2] == "copy":
            copied_files.install(base)
    return type(
        base.__name__, (*mixins, AcceleratedAction, base), {"__module__": base.__module__, "__doc__": base.__doc__}
    )


def accelerated(action: Any) -> Any:
    """The action with our mixin in front, when its connection is ours; else the very same one."""
    if not isinstance(action._connection, AcceleratedConnection) or isinstance(action, AcceleratedAction):
        return action
    replacement: Any = object.__new__(_accelerated_class(cast(Hashable, type(action))))
    replacement.__dict__ = action.__dict__
    replacement._shared_loader_obj = with_our_actions(action._shared_loader_obj)
    return replacement


class _ActionLoader:
    """Core's action loader for actions that run others (shell runs command, template runs copy, ...)."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Core's `get`; what it gives is accelerated like the action that asked."""
        found = self._loader.get(*args, **kwargs)
        return accelerated(found) if hasattr(found, "_connection") else found


def with_our_actions(loaders: Any) -> Any:
    """Core's namespace of plugin loaders, with an action loader that gives accelerated actions."""
    if loaders is None or isinstance(loaders.action_loader, _ActionLoader):
        return loaders
    return types.SimpleNamespace(**dict(vars(loaders), action_loader=_ActionLoader(loaders.action_loader)))
