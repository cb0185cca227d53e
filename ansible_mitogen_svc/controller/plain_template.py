# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a template will give, where that can be told by replacing names by values: a guess, which does nothing.

Used by loop_ahead.py in a task worker, for items of a loop whose turn has not come. Templating itself may not be done
ahead: it may run lookups. Only expressions are replaced that name a variable, or a member of one, perhaps with a filter
of `FILTERS` behind it; of everything else nothing is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

_EXPRESSION = re.compile(
    r"\{\{\s*([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*|\[\s*'[^']*'\s*\]|\[\s*\"[^\"]*\"\s*\])*)\s*(?:\|\s*(\w+)\s*)?\}\}"
)
_MEMBER = re.compile(r"\.(\w+)|\[\s*'([^']*)'\s*\]|\[\s*\"([^\"]*)\"\s*\]")
_MARKS = ("{{", "{%", "{#")
#: Variables that name each other: no deeper than this.
DEPTH = 5

FILTERS: Mapping[str, Callable[[str], str]] = {"basename": os.path.basename, "dirname": os.path.dirname}


class NotPlain(Exception):
    """It cannot be told what a template will give."""


def plainly(value: Any, variables: Mapping[str, Any], given: Mapping[str, Any], depth: int = DEPTH) -> Any:
    """What templating makes of an argument.

    :param given: variables that have their final values; they are looked at first.
    :raises NotPlain: that cannot be told.
    """
    if not isinstance(value, str):
        if value is None or isinstance(value, (bool, int, float)):
            return value
        raise NotPlain
    if not any(mark in value for mark in _MARKS):
        return value
    whole = _EXPRESSION.fullmatch(value)
    if whole is not None:
        return _value_of(whole, variables, given, depth)
    text = _EXPRESSION.sub(lambda found: _text(_value_of(found, variables, given, depth)), value)
    # What was put in may look like a template; what was there and is none of ours may not be left.
    if any(mark in _EXPRESSION.sub("", value) for mark in _MARKS):
        raise NotPlain
    return text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise NotPlain


def _value_of(found: re.Match[str], variables: Mapping[str, Any], given: Mapping[str, Any], depth: int) -> Any:
    name, members, filtered = found.groups()
    if not depth or name not in given and name not in variables:
        raise NotPlain
    final = name in given
    value = given[name] if final else variables[name]
    for member in _MEMBER.finditer(members):
        key = next(part for part in member.groups() if part is not None)
        if not isinstance(value, dict) or not dict.__contains__(value, key):
            raise NotPlain
        # Core has containers that template what is taken out of them, and hostvars.
        value = dict.__getitem__(value, key)
    value = value if final and isinstance(value, str) else plainly(value, variables, given, depth - 1)
    if filtered is None:
        return value
    if filtered not in FILTERS or not isinstance(value, str):
        raise NotPlain
    return FILTERS[filtered](value)
