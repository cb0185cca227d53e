# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Copies a host's facts for its variables without asking again whether each of their names is allowed.

Installed by `caches.py` in place of `clean_facts` in ansible/vars/manager.py; called in any thread.

Theory of operation
1. With each task core copies all facts of the host, compares their names with those that facts must not have, among
   them the options of every connection plugin in every directory, and looks through the copy for internal keys.
2. Whether names are allowed depends on the names and on the plugins there are. Sets of names of which core removed
   none are remembered, with the directories of connection plugins and when those were last changed.
3. For such facts one pass copies the dicts and lists and leaves internal keys out. Anything but plain dicts, lists and
   values without contents is core's to copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ansible.module_utils._internal._datatag import _AnsibleTaggedFloat, _AnsibleTaggedInt, _AnsibleTaggedStr
from ansible.plugins.loader import connection_loader

#: Sets of names kept; hosts with the same system have the same.
LIMIT = 256

#: What core calls so in results: see `strip_internal_keys` in ansible/vars/clean.py.
_INTERNAL = "_ansible_"
_WITHOUT_CONTENTS = frozenset(
    {str, int, float, bool, type(None), _AnsibleTaggedStr, _AnsibleTaggedInt, _AnsibleTaggedFloat}
)


class _Unusual(Exception):
    """Something that core has to copy."""


def cleaning(core: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`clean_facts`."""
    #: {names of facts that are all allowed: where connection plugins were}
    allowed: dict[frozenset[Any], Any] = {}

    def clean_facts(facts: Any) -> Any:
        if not facts:
            return {}
        names, places = frozenset(facts), _places()
        if allowed.get(names) == places:
            try:
                return _copied(facts)
            except _Unusual:
                return core(facts)
        cleaned = core(facts)
        if len(cleaned) == sum(not _is_internal(name) for name in names):
            if len(allowed) >= LIMIT:
                allowed.clear()
            allowed[names] = places
        return cleaned

    return clean_facts


def _places() -> tuple[tuple[str, int | None], ...]:
    """Directories that may have connection plugins, and when each was last changed."""
    return tuple((path, _changed(path)) for path in connection_loader._get_paths())


def _changed(directory: str) -> int | None:
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return None


def _is_internal(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(_INTERNAL)


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in _WITHOUT_CONTENTS:
        return value
    if kind is dict:
        return {name: _copied(item) for name, item in value.items() if not _is_internal(name)}
    if kind is list:
        return [_copied(item) for item in value]
    raise _Unusual
