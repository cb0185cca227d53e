# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Remembers variables with the tags that core puts on them for each task.

Installed by `caches.py` in place of the two tags of ansible/vars/manager.py (2.20 and newer); called in any thread.

Theory of operation
1. `VariableManager.get_vars` copies each variable of a host into ``vars``, with a tag that says this is deprecated, and
   each fact likewise: some hundreds of new strings per task, for values that hardly ever change.
2. A string or number cannot change, nor can a tag: the value with its tag, made once, does for all tasks. Which object
   a value is tells it from others; the memory holds it, so that no other can take its identity. To true, false and
   nothing core puts no tag, which it finds out anew each time.
3. Lists and dicts are copied by core each time, as they may have changed since.
4. Long strings are copied by core each time, too: they are few, and of one that changes again and again the memory
   would keep every version.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils._internal._datatag import _AnsibleTaggedFloat, _AnsibleTaggedInt, _AnsibleTaggedStr

#: Values kept, of a hundred bytes and more each; beyond that the memory starts anew.
LIMIT = 1 << 16
#: Characters of a string that is remembered.
LONGEST = 256

_STRINGS = frozenset({str, _AnsibleTaggedStr})
_UNCHANGING = _STRINGS | {int, float, bool, type(None), _AnsibleTaggedInt, _AnsibleTaggedFloat}


class RememberingTag:
    """In the place of one of core's tags, of which core calls `tag` only.

    :param core: that tag.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        #: {identity of a value: the value, and the same with the tag}
        self._known: dict[int, tuple[Any, Any]] = {}

    def tag(self, value: Any) -> Any:
        """`value` with the tag."""
        kind = type(value)
        if kind not in _UNCHANGING or kind in _STRINGS and len(value) > LONGEST:
            return self._core.tag(value)
        entry = self._known.get(id(value))
        if entry is None:
            if len(self._known) >= LIMIT:
                self._known = {}
            entry = self._known[id(value)] = value, self._core.tag(value)
        return entry[1]


def remembering(core: Any) -> RememberingTag:
    """One of the tags."""
    return core if isinstance(core, RememberingTag) else RememberingTag(core)
