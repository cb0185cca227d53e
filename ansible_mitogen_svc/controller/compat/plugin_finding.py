# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Remembers where core's own plugins are.

Installed by `caches.py` in place of PluginLoader.find_plugin_with_context, below the plugin policy, which is asked
about each plugin found all the same (controller/workers/plugin_policy.py); called in any thread.

Theory of operation
1. For each task core looks for eight plugins: connection, shell, action and module under several names, each time
   through the same routing tables and the same directories.
2. Only what was found is remembered, and of that only what lies in ansible-core's own package, came without
   redirection, deprecation or errors, and did not depend on a list of collections. A plugin that is missing may be
   there next time.
3. A full name (`ansible.builtin.debug`) means that one file. What any other name means depends on the directories
   searched: beside the playbook, in roles. Core keeps what it found there in a table that it makes anew when a
   directory is added; a remembered plugin holds for as long as the table has the same entry for it.
4. Each caller gets a context of its own, as contexts are changed by those who get them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import ansible
from ansible.plugins.loader import PluginLoader

_CORE = os.path.join(os.path.dirname(os.path.abspath(ansible.__file__)), "")
_FULL_NAME = "ansible.builtin."
_LEGACY_NAME = "ansible.legacy."
_PACKAGE = object()


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
        if entry is not None and entry[1] is _place(self, name, mod_type):
            return _own_context(entry[0])
        found = core(self, name, mod_type, ignore_deprecated, check_aliases, collection_list)
        place = _place(self, name, mod_type)
        if _is_certain(found, name) and (
            place is _PACKAGE or getattr(place, "path", None) == found.plugin_resolved_path
        ):
            known[key] = _own_context(found), place
        return found

    return find_plugin_with_context


def _place(loader: Any, name: str, mod_type: str) -> Any:
    """What a plugin's whereabouts depend on: `_PACKAGE` alone, or core's entry for what it found in directories."""
    if name.startswith(_FULL_NAME):
        return _PACKAGE
    suffix = mod_type or (".py" if loader.class_name else "")
    return loader._plugin_path_cache[suffix].get(name.removeprefix(_LEGACY_NAME))


def _is_certain(found: Any, name: str) -> bool:
    return bool(
        found.resolved
        and found.plugin_resolved_path
        and found.plugin_resolved_path.startswith(_CORE)
        and found.plugin_resolved_collection == "ansible.builtin"
        and found.redirect_list == [name]
        and not (found.deprecated or found.raw_error_list or found.error_list or found.import_error_list)
    )


def _own_context(found: Any) -> Any:
    clone = object.__new__(type(found))
    for name, value in found.__dict__.items():
        clone.__dict__[name] = value.copy() if type(value) is list else value
    return clone
