# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Files with variables of hosts and groups: what a task finds out about them is forgotten when it ends, as under core.

Installed by the strategy mixin for each play; used in the main thread, and in workers inside this process.

Theory of operation
1. Core's DataLoader keeps what it parsed, and its plugin `host_group_vars` which files there are. The main process
   reads those of the play's hosts before their first task; whoever reads `hostvars` of other hosts does so in a worker
   process, whose memory ends with the task: the next task sees what was written meanwhile.
2. Here each task adds to a memory of its own (`TaskPolicy.learned`), and finds what the main thread knew without it.
3. To parse (and decrypt) a file for each task anew is expensive in threads. What a task parsed serves others as long
   as the file is the version it was, unless it was written to so short a time before that a change could go unseen.

Looked at in ansible-core 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1. What is not found as it is there is left alone.
"""

from __future__ import annotations

import sys
from typing import Any

from ansible_mitogen_svc.controller.compat.copied_files import settled_version
from ansible_mitogen_svc.controller.workers.plugin_policy import learned_by_task

#: Parsed files that serve several tasks; all are forgotten when there are more.
KEPT = 4096
_PLUGIN = "ansible.plugins.vars.host_group_vars"


class TaskDict(dict[Any, Any]):
    """A dict in which a task finds what it put there itself, and what was put there by none."""

    def _own(self) -> dict[Any, Any] | None:
        learned = learned_by_task()
        return None if learned is None else learned.setdefault(id(self), {})

    def __contains__(self, key: object) -> bool:
        own = self._own()
        return own is not None and key in own or super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        own = self._own()
        return own[key] if own is not None and key in own else super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        own = self._own()
        if own is None:
            super().__setitem__(key, value)
        else:
            own[key] = value


class TaskSet(set[Any]):
    """A set, likewise."""

    def __contains__(self, item: object) -> bool:
        learned = learned_by_task()
        return learned is not None and item in learned.get(id(self), ()) or super().__contains__(item)

    def add(self, item: Any) -> None:
        """Add it for the current task, or for good where none runs."""
        learned = learned_by_task()
        if learned is None:
            super().add(item)
        else:
            learned.setdefault(id(self), set()).add(item)


class ParsedFiles(TaskDict):
    """What files hold, by path. Core looks whether one is in it, and then takes it out, or reads it and puts it in."""

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__(known)
        #: {path: version, and what was parsed}
        self._kept: dict[Any, tuple[list[int], Any]] = {}

    def __contains__(self, key: object) -> bool:
        if super().__contains__(key):
            return True
        own = self._own()
        if own is None:
            return False
        version, kept = settled_version(key), self._kept.get(key)
        if kept is None or kept[0] != version:
            self._versions()[key] = version
            return False
        own[key] = kept[1]
        return True

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        version = self._versions().get(key) if self._own() is not None else None
        if version is not None and version == settled_version(key):
            if len(self._kept) >= KEPT:
                self._kept = {}
            self._kept[key] = version, value

    def _versions(self) -> dict[Any, list[int] | None]:
        """Versions of files before this task read them."""
        learned = learned_by_task()
        versions: dict[Any, list[int] | None] = {} if learned is None else learned.setdefault((id(self), "read"), {})
        return versions


def install(loader: Any) -> None:
    """Have tasks forget what they learn through core's DataLoader. Doing it again changes nothing."""
    if type(getattr(loader, "_FILE_CACHE", None)) is dict:
        loader._FILE_CACHE = ParsedFiles(loader._FILE_CACHE)
    plugin: Any = sys.modules.get(_PLUGIN)
    if type(getattr(plugin, "FOUND", None)) is dict and type(getattr(plugin, "NAK", None)) is set:
        plugin.FOUND, plugin.NAK = TaskDict(plugin.FOUND), TaskSet(plugin.NAK)
