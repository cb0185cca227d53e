# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Forgets plugins beside playbooks and in roles when a task of the run has made, changed or removed one of their kind.

Called by the `Decider` in the main thread, before it chooses a worker for a task. Private to core's PluginLoader
(ansible/plugins/loader.py; the same in 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1).

Theory of operation
1. Under core, filters, tests, lookups, connection and become plugins are looked for in a task's own process. Which
   files there are, and the code in them, is what that process finds: a playbook may bring its plugins with it, or
   update them, and go on with the new ones. Here the loaders are those of the whole run.
2. So what lies in the directories that core's own package is not in is compared with what lay there before the last
   task. Where it is not the same, the loader of that kind begins anew, as core has it do when a directory is added.
3. Modules and actions are not among them: core's own process has looked for these when it read the tasks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from ansible.plugins import loader as plugin_loader

from ansible_mitogen_svc.controller.workers.locks import loader_lock
from ansible_mitogen_svc.controller.workers.plugin_state import keeps_state
from ansible_mitogen_svc.wire.file_version import full_version_of

KINDS = ("become", "connection", "filter", "lookup", "test")

#: Versions of files, by path.
Versions = dict[str, list[int]]
_seen: dict[str, Versions] = {}


def forget_changed() -> None:
    """Have core look anew for those kinds of plugins of which a file has changed since the last call."""
    for kind in KINDS:
        loader = getattr(plugin_loader, f"{kind}_loader")
        now = dict(_versions(loader))
        before = _seen.get(kind, now)
        if now != before:
            _forget(loader, {path for path in before if now.get(path) != before[path]})
        _seen[kind] = now


def _versions(loader: Any) -> Iterator[tuple[str, list[int]]]:
    for place in loader._get_paths_with_context():
        if place.internal:
            continue
        try:
            with os.scandir(place.path) as entries:
                # Beside the files there is the byte code that importing them writes.
                for entry in entries:
                    if entry.name.endswith(".py"):
                        yield entry.path, full_version_of(entry.stat())
        except OSError:
            continue  # most directories that are searched do not exist


def _forget(loader: Any, outdated: set[str]) -> None:
    with loader_lock:
        for path, module in list(loader._module_cache.items()):
            if path in outdated:
                # Where core would take it from, without a look at the file.
                sys.modules.pop(getattr(module, "__name__", ""), None)
        loader._clear_caches()
    keeps_state.cache_clear()
