# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Copies, squashes, validates and dumps tasks and play contexts without core's generic attribute machinery.

Installed by `caches.py` in place of four methods of ansible.playbook.base.FieldAttributeBase and of a field's getter;
called in any thread.

Theory of operation
1. A class of playbook objects has 20 to 40 *fields*. The value of a field `x` is in the object's attribute `_x`; unset,
   it is that of a parent, or a default. Core goes through descriptors, parents and, to validate, the template engine
   for each field of each object, seven times per task and host.
2. What depends on the class alone is worked out once: its `Plan`. A class whose fields are not plain ones has none, and
   is left to core.
3. Each function here gives what core's gives. Whatever it does not recognise (templates, other types, computed
   defaults, values that come through the dependencies of roles) goes to core's method, for that one field or in all.
4. Nothing of an object is remembered: plans hold classes' properties only, so there is nothing to become outdated.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.playbook.attribute import Attribute, FieldAttribute
from ansible.playbook.base import FieldAttributeBase
from ansible.playbook.block import Block
from ansible.playbook.role_include import IncludeRole
from ansible.playbook.task import Task
from ansible.utils.sentinel import Sentinel

#: Types, with their tagged variants, whose shallow copy is as good as the value itself.
_ATOMIC = (type(None), int, float, str, type)
_PLAIN = {"bool": bool, "int": int, "float": float}
#: What core's `copy` takes over besides the fields.
_STATE = ("_loader", "_variable_manager", "_origin", "_validated", "_finalized", "_uuid")


@dataclass(frozen=True)
class Field:
    """A field of a class.

    Attributes:
        name: core's keyword, or an alias of it.
        own_key, key: attributes that core's `copy` and core's getter read.
        targets: attributes that an assignment changes.
        isa: type that core converts to.
        direct: whether the getter reads `key` as it is when the object has no parents to ask.
        inherits: whether an unset value is that of a parent; `extend`: whether parents' values are added to it.
        default: the value, or what makes it, when nobody has set one.
        required, static: as core defines them.
        simple: whether nothing but templating and conversion happens to it in validation.
        kept: whether core's validator gives back what it gets.
        inert: whether validation ignores it in objects whose values are not validated (blocks).
    """

    name: str
    own_key: str
    key: str
    targets: tuple[str, ...]
    isa: str | None
    direct: bool
    inherits: bool
    extend: bool
    default: Any
    required: bool
    static: bool
    simple: bool
    kept: bool
    inert: bool


@dataclass(frozen=True)
class Plan:
    """The fields of a class in core's order, `watched`: those not inert; `flat`: its objects have no parents."""

    fields: tuple[Field, ...]
    watched: tuple[Field, ...]
    flat: bool


#: Templates a name whatever happens; a name that is no template stays as it is.
_NAME_VALIDATOR = getattr(Task, "_post_validate_name", None)

_plans: dict[type, Plan | None] = {}


def plan_of(kind: type) -> Plan | None:
    """The plan of a class of playbook objects; `None` when they are core's business."""
    try:
        return _plans[kind]
    except KeyError:
        plan = _plans[kind] = _make_plan(kind)
        return plan


def _make_plan(kind: Any) -> Plan | None:
    attributes = kind.fattributes
    if kind.__setattr__ is not object.__setattr__ or not all(_is_plain(kind, *item) for item in attributes.items()):
        return None
    fields = tuple(_field(kind, name, attribute) for name, attribute in attributes.items())
    watched = tuple(field for field in fields if not field.inert)
    return Plan(fields, watched, flat=not hasattr(kind, "_get_parent_attribute"))


def _is_plain(kind: type, name: str, attribute: Any) -> bool:
    """Whether a field's value lies in the object's own dictionary, put there by core's own setter."""
    return (
        inspect.getattr_static(kind, name, None) is attribute
        and type(attribute).__set__ is Attribute.__set__
        and not hasattr(kind, f"_get_attr_{attribute.name}")
        and not hasattr(kind, f"_{attribute.name}")
        and not hasattr(kind, f"_{name}")
    )


def _field(kind: type, name: str, attribute: Any) -> Field:
    validator = getattr(kind, f"_post_validate_{name}", None)
    asked = attribute.required or attribute.always_post_validate
    return Field(
        name=name,
        own_key=f"_{name}",
        key=f"_{attribute.name}",
        targets=tuple(f"_{each}" for each in (attribute.name, attribute.alias) if each is not None),
        isa=attribute.isa,
        direct=type(attribute).__get__ in (Attribute.__get__, FieldAttribute.__get__),
        inherits=isinstance(attribute, FieldAttribute),
        extend=bool(getattr(attribute, "extend", False)),
        default=attribute.default,
        required=attribute.required,
        static=attribute.static,
        simple=not attribute.static and not attribute.required and validator in (None, _NAME_VALIDATOR),
        kept=not attribute.static and attribute.listof is None and _gives_back(validator),
        inert=name == "vars" or not (asked or attribute.static),
    )


def _given_back(self: Any, attr: Any, value: Any, templar: Any) -> Any:
    return value


def _gives_back(validator: Any) -> bool:
    """Whether the byte code of a validator is that of one that does nothing."""
    code = getattr(validator, "__code__", None)
    return code is not None and code.co_code == _given_back.__code__.co_code and code.co_argcount == 4


def _settled(isa: str | None, value: Any) -> bool:
    """Whether templating and converting would give back `value`, which is no template and has its type already."""
    kind = type(value)
    if kind is _PLAIN.get(isa or ""):
        return True
    if isa == "string":
        return isinstance(value, str) and "{" not in value and not value.startswith("#jinja2")
    return not value and (kind is list and isa == "list" or kind is dict and isa == "dict")


def copying(core: Callable[..., Any]) -> Callable[..., Any]:
    """`FieldAttributeBase.copy`: core reads and writes each field through its descriptor."""

    def copy_object(self: Any) -> Any:
        plan = plan_of(type(self))
        if plan is None:
            return core(self)
        clone = self.__class__()
        own, new = self.__dict__, clone.__dict__
        for field in plan.fields:
            value = own.get(field.own_key, Sentinel)
            if not isinstance(value, _ATOMIC):
                value = copy.copy(value)
            for target in field.targets:
                new[target] = value
        for name in _STATE:
            new[name] = own[name]
        if hasattr(self, "_ds"):
            clone._ds = self._ds
        return clone

    return copy_object


def squashing(core: Callable[..., None]) -> Callable[..., None]:
    """`FieldAttributeBase.squash`: core asks all parents anew for each field."""

    def squash(self: Any) -> None:
        if self._squashed:
            return
        plan = plan_of(type(self))
        sources = None if plan is None else _sources(self, plan)
        if plan is None or sources is None:
            core(self)
            return
        own = self.__dict__
        for field in plan.fields:
            value = own.get(field.key, Sentinel)
            if value is Sentinel and field.inherits:
                for source in sources:
                    value = getattr(source, field.key, Sentinel)
                    if value is not Sentinel:
                        break
            if field.extend or not field.direct:
                value = getattr(self, field.name)
            elif value is Sentinel:
                value = field.default() if callable(field.default) else field.default
            for target in field.targets:
                own[target] = value
        self._squashed = True

    return squash


def _sources(item: Any, plan: Plan) -> list[Any] | None:
    """What core asks for an unset value, in its order; `None` when there is more to it than the first that has one."""
    if plan.flat:
        return []
    if type(item)._get_parent_attribute is not Task._get_parent_attribute:
        return None
    sources: list[Any] = []
    return sources if item._parent is None or _add_sources(item._parent, sources) else None


def _add_sources(block: Any, sources: list[Any]) -> bool:
    if type(block) is not Block:
        # An include: what counts depends on whether it was a static one.
        return False
    sources.append(block)
    if block._parent is not None and not _add_sources(block._parent, sources):
        return False
    if block._role:
        if block.get_dep_chain():
            return False
        sources.append(block._role)
    if block._play:
        sources.append(block._play)
    return True


def validating(core: Callable[..., None]) -> Callable[..., None]:
    """`FieldAttributeBase.post_validate`: core passes each of some 30 keywords of a task through the template engine,
    most of them unset or plain, and looks at each of those of its blocks, to leave them as they are.
    """

    def post_validate(self: Any, templar: Any) -> None:
        plan = plan_of(type(self))
        if plan is None or isinstance(self, IncludeRole):
            core(self, templar)
            return
        everything = self._post_validate_object
        own = self.__dict__ if plan.flat or self._squashed or self._finalized else {}
        for field in plan.fields if everything else plan.watched:
            value = own.get(field.key, Sentinel)
            if value is Sentinel or not field.direct:
                value = getattr(self, field.name)
            if value is None and not field.required:
                continue
            if field.simple and _settled(field.isa, value):
                # Inherited values become the object's own, and containers nobody else's.
                if isinstance(value, (list, dict)):
                    value = value.copy()
            elif field.static and not value:
                continue
            elif not (field.kept and everything and _has_type(field.isa, value)):
                value = self.post_validate_attribute(field.name, templar=templar)
                if value is Sentinel:
                    continue
            for target in field.targets:
                self.__dict__[target] = value
        self._finalized = True

    return post_validate


def _has_type(isa: str | None, value: Any) -> bool:
    return isa == "list" and isinstance(value, list) or isa == "string" and isinstance(value, str)


def dumping(core: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """`FieldAttributeBase.dump_attrs`."""
    dump_nested = getattr(FieldAttributeBase, "serialize", None) or FieldAttributeBase.dump_attrs

    def dump_attrs(self: Any) -> dict[str, Any]:
        plan = plan_of(type(self))
        if plan is None or not (plan.flat or self._squashed or self._finalized):
            return core(self)
        own = self.__dict__
        dumped = {}
        for field in plan.fields:
            value = own.get(field.key, Sentinel)
            if value is Sentinel or not field.direct:
                value = getattr(self, field.name)
            dumped[field.name] = dump_nested(value) if field.isa == "class" else value
        return dumped

    return dump_attrs


def reading(core: Callable[..., Any]) -> Callable[..., Any]:
    """`FieldAttribute.__get__`, of objects that have all values in themselves."""

    def get(self: Any, item: Any, kind: Any = None) -> Any:
        if item is not None:
            own = item.__dict__
            if own.get("_squashed") or own.get("_finalized"):
                value = own.get(f"_{self.name}", Sentinel)
                if value is not Sentinel:
                    return value
        return core(self, item, kind)

    return get
