# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Shortcuts for what core works out anew for each task, although nothing can have changed. Installed once per process.

Each shortcut stands in for one function of core, gives what that function gives, and is installed only where the
source of that function is one it was compared with: `KNOWN` has the digests (2.19.14, 2.20.10, 2.21.5, 2.22.0rc1).
Elsewhere core's own function stays, which is slower and no less right. Used from any thread; they keep no state but
`_plans`, whose entries are the same whoever makes them.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from ansible.playbook import base
from ansible.playbook.role_include import IncludeRole
from ansible.utils.sentinel import Sentinel
from ansible.vars import clean
from ansible.vars import manager as vars_manager

#: Digests of the sources each shortcut was compared with.
KNOWN = {
    "post_validate": frozenset({"82134241279ed62b", "2e98d141dee49a0d", "529bc690bcdddf0e"}),
    "clean_facts": frozenset({"6b06f73b53bfa85a", "1d70a12d196d9ae4"}),
}

#: (name, isa, whether a plain value of that type stays as it is) of each attribute of a class of playbook objects.
Plan = list[tuple[str, str | None, bool]]
_plans: dict[type, Plan] = {}
_PLAIN = {"bool": bool, "int": int, "float": float}


def digest(*functions: Callable[..., Any]) -> str:
    """Names what `functions` consist of."""
    text = "".join(inspect.getsource(function) for function in functions)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sources() -> dict[str, str]:
    fields = base.FieldAttributeBase
    return {
        "post_validate": digest(
            fields.post_validate,
            fields.post_validate_attribute,
            fields.get_validated_value,
            fields._get_validated_value,
        ),
        "clean_facts": digest(clean.clean_facts),
    }


def install() -> list[str]:
    """Install what fits this core; returns the names of the shortcuts that do."""
    fitting = [name for name, found in _sources().items() if found in KNOWN[name]]
    if "post_validate" in fitting:
        base.FieldAttributeBase.post_validate = _validating(base.FieldAttributeBase.post_validate)
    if "clean_facts" in fitting:
        vars_manager.clean_facts = _cleaning(vars_manager.clean_facts)
    return fitting


def _cleaning(core: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Core searches all directories of connection plugins for facts to remove, also when there are no facts."""

    def clean_facts(facts: Any) -> Any:
        return core(facts) if facts else {}

    return clean_facts


def _plan(kind: type) -> Plan:
    found = _plans.get(kind)
    if found is None:
        found = []
        for name, attribute in kind.fattributes.items():  # type: ignore[attr-defined]
            simple = not attribute.static and not attribute.required and not hasattr(kind, f"_post_validate_{name}")
            found.append((name, attribute.isa, simple))
        _plans[kind] = found
    return found


def _settled(isa: str | None, value: Any) -> bool:
    """Whether templating and converting would give back `value`, which is no template and has its type already."""
    kind = type(value)
    if kind is _PLAIN.get(isa or ""):
        return True
    if isa == "string":
        return isinstance(value, str) and "{" not in value and not value.startswith("#jinja2")
    return not value and (kind is list and isa == "list" or kind is dict and isa == "dict")


def _validating(core: Callable[..., None]) -> Callable[..., None]:
    """Core passes each of some 30 keywords of a task through the template engine, most of them unset or plain."""

    def post_validate(self: Any, templar: Any) -> None:
        if isinstance(self, IncludeRole) or not self._post_validate_object:
            core(self, templar)
            return
        for name, isa, simple in _plan(type(self)):
            if simple:
                value = getattr(self, name)
                if value is None:
                    continue
                if _settled(isa, value):
                    # Inherited values become the object's own, and containers nobody else's.
                    setattr(self, name, value.copy() if isinstance(value, list | dict) else value)
                    continue
            value = self.post_validate_attribute(name, templar=templar)
            if value is not Sentinel:
                setattr(self, name, value)
        self._finalized = True

    return post_validate
