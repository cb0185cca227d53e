# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Copies of the arguments that a task reports, for workers that share memory with the strategy. Any thread.

Arguments that come from a playbook are core's tagged dicts and lists. `copy.deepcopy` takes them apart down to each
tag: 0.1 to 0.4 ms for two arguments, with each result and each item of a loop. Neither strings, numbers nor tags can
change, so containers of their own are all that it takes.

Private names of core: the two tagged containers (ansible/module_utils/_internal/_datatag/__init__.py), the same in
2.19, 2.20, 2.21 and 2.22.0rc1. Where they are missing, and for all other kinds (lazy templates, sets), Python copies.
"""

from __future__ import annotations

import copy
from typing import Any

from ansible.module_utils._internal import _datatag

_DICTS = {dict, getattr(_datatag, "_AnsibleTaggedDict", dict)}
_LISTS = {list, getattr(_datatag, "_AnsibleTaggedList", list)}


def own_containers(value: Any) -> Any:
    """The same value with the same tags, in dicts and lists of its own."""
    kind = type(value)
    if kind in _DICTS:
        own = copy.copy(value)
        places = own.items()
    elif kind in _LISTS:
        own = copy.copy(value)
        places = enumerate(own)
    else:
        return copy.deepcopy(value) if isinstance(value, (dict, list, tuple, set)) else value
    for place, item in places:
        if isinstance(item, (dict, list, tuple, set)):
            own[place] = own_containers(item)
    return own
