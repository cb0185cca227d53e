# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Shortcuts for what core works out anew for each task, although nothing can have changed. Installed once per process.

Each shortcut stands in for one function of core, gives what that function gives, and is installed only where the
sources of that function, and of those it relies on, are ones it was compared with: `SHORTCUTS` has their digests
(2.19.14, 2.20.10, 2.21.5, 2.22.0rc1). Elsewhere core's own function stays, which is slower and no less right. What a
shortcut remembers, and why that cannot be outdated, is said where it is defined.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_mitogen_svc.controller.compat.sources import source

_HERE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class Shortcut:
    """A stand-in for one function (or other object) of core.

    Attributes:
        owner: module, or ``module:class``, that core has it in.
        name: its name there.
        maker: ``module:function`` beside this one, that makes the stand-in from core's.
        compared: names, in the owner or as ``module:name``, of the functions that were looked at: itself, and those
            whose working is taken for granted.
        known: digests of their sources.
    """

    owner: str
    name: str
    maker: str
    compared: tuple[str, ...]
    known: frozenset[str]

    def digest(self) -> str | None:
        """Names what the functions consist of; `None` when one is missing."""
        try:
            return digest(*(_find(name if ":" in name else _join(self.owner, name)) for name in self.compared))
        except (ImportError, AttributeError, TypeError, OSError):
            return None

    def install(self) -> bool:
        """Put the stand-in in its place, unless a function is not what it is known to be; whether it did."""
        if self.digest() not in self.known:
            return False
        owner = _find(self.owner)
        setattr(owner, self.name, _find(f"{_HERE}.{self.maker}")(getattr(owner, self.name, None)))
        return True


def _join(owner: str, name: str) -> str:
    return f"{owner}.{name}" if ":" in owner else f"{owner}:{name}"


def _find(place: str) -> Any:
    module, _colon, names = place.partition(":")
    return functools.reduce(getattr, filter(None, names.split(".")), importlib.import_module(module))


def digest(*functions: Callable[..., Any]) -> str:
    """Names what `functions` consist of."""
    text = "".join(source(function) for function in functions)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_BASE = "ansible.playbook.base:FieldAttributeBase"
_TASK = "ansible.playbook.task:Task"
_BLOCK = "ansible.playbook.block:Block"
_DATATAG = "ansible.module_utils._internal._datatag"
_GETTERS = (
    "ansible.playbook.attribute:Attribute.__get__",
    "ansible.playbook.attribute:Attribute.__set__",
    "ansible.playbook.attribute:FieldAttribute.__get__",
)

SHORTCUTS = (
    Shortcut(
        _BASE,
        "post_validate",
        "playbook_objects:validating",
        (
            "post_validate",
            "post_validate_attribute",
            "get_validated_value",
            "_get_validated_value",
            f"{_TASK}._post_validate_name",
            *_GETTERS,
        ),
        frozenset({"2450bb575af49a9d", "286524d3b0a4a67d", "ef7f6e988c5472e7"}),
    ),
    Shortcut(
        _BASE, "copy", "playbook_objects:copying", ("copy", "__init__", *_GETTERS), frozenset({"e2d9288f37a2ded9"})
    ),
    Shortcut(
        _BASE,
        "squash",
        "playbook_objects:squashing",
        (
            "squash",
            f"{_TASK}._get_parent_attribute",
            f"{_BLOCK}._get_parent_attribute",
            f"{_BLOCK}.get_dep_chain",
            *_GETTERS,
        ),
        frozenset({"db74ed801a2053e5"}),
    ),
    Shortcut(
        _BASE,
        "dump_attrs",
        "playbook_objects:dumping",
        ("dump_attrs", *_GETTERS),
        frozenset({"0e931e2c9267424c", "0366cc6c49fe790c"}),
    ),
    Shortcut(
        "ansible.config.manager:ConfigManager",
        "get_plugin_options_and_origins",
        "plugin_options:remembering",
        (
            "get_plugin_options_and_origins",
            "get_config_value_and_origin",
            "get_configuration_definitions",
            "_loop_entries",
            "template_default",
            "_get_ini_config_value",
        ),
        frozenset({"0d4c6ec6309ab652", "70244ad48a34136a", "8631a210031ea4a4"}),
    ),
    Shortcut(
        "ansible.plugins.loader:PluginLoader",
        "find_plugin_with_context",
        "plugin_finding:remembering",
        (
            "find_plugin_with_context",
            "_resolve_plugin_step",
            "_find_fq_plugin",
            "_find_plugin_legacy",
            "_clear_caches",
        ),
        frozenset({"fb43ace7b531d0af", "ddd1cb314b5f3a71"}),
    ),
    Shortcut(
        "ansible.config.manager:ConfigManager",
        "get_plugin_vars",
        "plugin_options:looking_up",
        ("get_plugin_vars", "get_configuration_definitions"),
        frozenset({"aacbcff77dd612a7"}),
    ),
    Shortcut(
        "ansible.config.manager:ConfigManager",
        "get_plugin_options_from_var",
        "plugin_options:looking_up",
        ("get_plugin_options_from_var", "get_configuration_definitions"),
        frozenset({"1ad3af69dc641986"}),
    ),
    Shortcut(
        "ansible.plugins.connection.ssh",
        "argparse",
        "late_parser:LateArgparse",
        ("Connection.__init__",),
        frozenset({"089c1586a67bbe8d", "9f1ea69ecb11f65e", "7a065795b5c3e53d"}),
    ),
    Shortcut(
        "ansible.executor.module_common:_CachedModule",
        "load",
        "zip_references:referring",
        (
            "ansible.executor.module_common:_CachedModule",
            "ansible.executor.module_common:_find_module_utils",
            "ansible.plugins.action:ActionBase._execute_module",
        ),
        frozenset({"ebafd8de109961e4", "26a531759aeda658", "4937e5b10924b3e6", "57e0319a735700f3"}),
    ),
    Shortcut(
        "ansible.vars.manager",
        "clean_facts",
        "fact_cleaning:cleaning",
        (
            "ansible.vars.clean:clean_facts",
            "ansible.vars.clean:module_response_deepcopy",
            "ansible.vars.clean:strip_internal_keys",
            "ansible.plugins.loader:PluginLoader.all",
        ),
        frozenset({"1f32ee366ee21c94", "39798cddc5d82180", "049ef2ab2b350c23"}),
    ),
    Shortcut(
        "ansible._internal._templating._engine:TemplateEngine",
        "template",
        "plain_strings:passing_on",
        (
            "template",
            "_finalize_top_level_template_result",
            "ansible._internal._templating._jinja_bits:is_possibly_template",
            "ansible._internal._templating._jinja_bits:TemplateOverrides._contains_start_string",
            "ansible._internal._templating._jinja_bits:_finalize_template_result",
        ),
        frozenset({"72c720c76d2a185d", "fbe55335042824ac"}),
    ),
    Shortcut(
        "ansible.module_utils._internal._datatag:_AnsibleTaggedStr",
        "__deepcopy__",
        "plain_strings:copied_as_itself",
        (
            "ansible.module_utils._internal._datatag:_AnsibleTaggedStr",
            "ansible.module_utils._internal._datatag:AnsibleTaggedObject",
        ),
        frozenset({"b0fea77f3f0fbfa6"}),
    ),
    *(
        Shortcut(
            "ansible.vars.manager",
            tag,
            "variable_tags:remembering",
            (
                "VariableManager.get_vars",
                "_deprecate_top_level_fact",
                f"{_DATATAG}:AnsibleTagHelper.tag",
                f"{_DATATAG}:AnsibleDatatagBase.tag",
            ),
            frozenset({"b308d29c47ba3571", "6c434721eb35a711"}),
        )
        for tag in ("_DEPRECATE_VARS", "_DEPRECATE_TOP_LEVEL_FACT_TAG")
    ),
    Shortcut(
        "ansible.utils.vars",
        "transform_to_native_types",
        "native_values:converting",
        (
            "transform_to_native_types",
            "ansible._internal._json:AnsibleVariableVisitor",
            f"{_DATATAG}:AnsibleTagHelper.tag_copy",
            f"{_DATATAG}:AnsibleTaggedObject._native_copy",
        ),
        frozenset({"5b7d2ad61deb6287", "e999218827c7d3b4"}),
    ),
    Shortcut(
        "ansible.config.manager:ConfigManager",
        "get_config_value_and_origin",
        "base_settings:remembering",
        (
            "get_config_value_and_origin",
            "get_configuration_definitions",
            "_loop_entries",
            "template_default",
            "_get_ini_config_value",
        ),
        frozenset({"26f3026c114ac9d5", "80ff25a23094cda6", "e4a7c70df45e8e3e"}),
    ),
    # Others rely on it as it is: the last one.
    Shortcut(
        "ansible.playbook.attribute:FieldAttribute",
        "__get__",
        "playbook_objects:reading",
        ("__get__",),
        frozenset({"aeac26b5d3d64e95"}),
    ),
)


def install() -> list[str]:
    """Install what fits this core; returns the names of what was replaced."""
    return [shortcut.name for shortcut in SHORTCUTS if shortcut.install()]
