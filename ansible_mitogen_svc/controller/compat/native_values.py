# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Results without core's tags, for callbacks.

Installed by `caches.py` in place of `transform_to_native_types` (ansible/utils/vars.py); called in the main thread, and
in workers for the items of loops. Nothing is remembered here.

Core visits every value of a result with a class that serves many purposes. What a result nearly always consists of -
dicts and lists of strings, numbers and nothing, with tags or without - becomes new dicts and lists of the same values
without tags. As soon as there is anything else (a vaulted string, a template's leftovers, a class of somebody's own)
the whole result is core's to convert, or to refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils._internal._datatag import (
    _AnsibleTaggedDict,
    _AnsibleTaggedFloat,
    _AnsibleTaggedInt,
    _AnsibleTaggedList,
    _AnsibleTaggedStr,
)

_SAME = frozenset({str, int, float, bool, type(None)})
#: {tagged type: what it is without tags}
_NATIVE: dict[type, Callable[[Any], Any]] = {
    _AnsibleTaggedStr: str,
    _AnsibleTaggedInt: int,
    _AnsibleTaggedFloat: float,
}


class _Unusual(Exception):
    """Something that core has to look at."""


def converting(core: Callable[..., Any]) -> Callable[..., Any]:
    """`transform_to_native_types`."""

    def transform_to_native_types(value: object, redact: bool = True) -> Any:
        try:
            return _native(value)
        except (_Unusual, RecursionError):
            return core(value, redact)

    return transform_to_native_types


def _native(value: Any) -> Any:
    kind = type(value)
    if kind in _SAME:
        return value
    if kind is dict or kind is _AnsibleTaggedDict:
        return {_native(key): _native(item) for key, item in value.items()}
    if kind is list or kind is _AnsibleTaggedList:
        return [_native(item) for item in value]
    convert = _NATIVE.get(kind)
    if convert is None:
        raise _Unusual
    return convert(value)
