# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Remembers where core's own plugins are.

Installed by `caches.py` in place of PluginLoader.find_plugin_with_context, below the plugin policy, which is asked
about each plugin found all the same (controller/workers/plugin_policy.py); called in any thread.

Theory of operation
1. For each task core looks for eight plugins: connection, shell, action and module under several names, each time
   through the same routing tables and the same directories.
2. Only what core finds in its own package is remembered, when it came without redirection, deprecation or errors and
   did not depend on a list of collections; and what it does not find (`ping` is no action).
3. A full name means one file; one that is missing is looked for again when the directory it belongs in has changed.
   What any other name means depends on the directories searched: beside the playbook, in roles. Core keeps what it
   found there in a table, searches no directory twice, and makes all that anew when a directory is added; a remembered
   plugin holds for as long as the table has the same entry for it. A missing one holds for as long as the list of
   directories is the same, none of them came into being since, and core's package has none by that name either.
4. Each caller gets a context of its own, as contexts are changed by those who get them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import ansible
from ansible.plugins.loader import PluginLoader

_CORE = os.path.join(os.path.dirname(os.path.abspath(ansible.__file__)), "")
_FULL_NAME = "ansible.builtin."
_LEGACY_NAME = "ansible.legacy."
_THERE = "in core's package"
_PACKAGE = "ansible_collections.ansible.builtin.plugins"


def remembering(core: Callable[..., Any]) -> Callable[..., Any]:
    """`PluginLoader.find_plugin_with_context`."""
    known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def find_plugin_with_context(
        self: Any,
        name: str,
        mod_type: str = "",
        ignore_deprecated: bool = False,
        check_aliases: bool = False,
        collection_list: list[str] | None = None,
    ) -> Any:
        if collection_list or check_aliases or type(self) is not PluginLoader or not isinstance(name, str):
            return core(self, name, mod_type, ignore_deprecated, check_aliases, collection_list)
        key = self, str(name), mod_type, ignore_deprecated
        entry = known.get(key)
        if entry is not None and entry[1] == _place(self, name, mod_type, entry[0].resolved):
            return _own_context(entry[0])
        missing = _place(self, name, mod_type, resolved=False)
        found = core(self, name, mod_type, ignore_deprecated, check_aliases, collection_list)
        if _is_certain(found, name):
            place = _place(self, name, mod_type, resolved=True) if found.resolved else missing
            if place is not None and getattr(place, "path", found.plugin_resolved_path) == found.plugin_resolved_path:
                _ = found.resolved_fqcn  # worked out once, for all copies
                known[key] = _own_context(found), place
        return found

    return find_plugin_with_context


def _place(loader: Any, name: str, mod_type: str, resolved: bool) -> Any:
    """What tells whether a plugin is still where it was (`resolved`), or still missing. `None`: nothing does."""
    if name.startswith(_FULL_NAME):
        return _THERE if resolved else _core_directory(loader, name)
    suffix = mod_type or (".py" if loader.class_name else "")
    plain = name.removeprefix(_LEGACY_NAME)
    entry = loader._plugin_path_cache[suffix].get(plain)
    if resolved or entry is not None:
        return entry if resolved else None
    paths = loader._paths
    if paths is None or "." in plain:
        return None
    if any(place.path not in loader._searched_paths and os.path.isdir(place.path) for place in paths):
        return None
    directory = _core_directory(loader, _FULL_NAME + plain)
    return None if directory is None else (paths, directory)


def _core_directory(loader: Any, name: str) -> int | None:
    """When core's directory of plugins like `loader`'s changed last, in which a full name would be."""
    package = sys.modules.get(f"{_PACKAGE}.{loader.type}")
    if package is None or name.count(".") != _FULL_NAME.count(".") or not package.__file__:
        return None
    try:
        return os.stat(os.path.dirname(package.__file__)).st_mtime_ns
    except OSError:
        return None


def _is_certain(found: Any, name: str) -> bool:
    if found.redirect_list != [name] or found.pending_redirect or found.deprecated:
        return False
    if found.raw_error_list or found.error_list or found.import_error_list:
        return False
    if not found.resolved:
        return True
    path = found.plugin_resolved_path
    return bool(path and path.startswith(_CORE) and found.plugin_resolved_collection == "ansible.builtin")


def _own_context(found: Any) -> Any:
    clone = object.__new__(type(found))
    for name, value in found.__dict__.items():
        clone.__dict__[name] = value.copy() if type(value) is list else value
    return clone
