# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The options of our strategies, read and checked before a play's first task. Main thread.

Where an option can be set is documented in ``plugins/doc_fragments/strategy_options.py``; its values are resolved by
core's own configuration code, so precedence is core's: variables, environment, ini file, default.
`load` reads them for one play, `current` gives those of the play that runs to the rest of the controller.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from dataclasses import dataclass, field, fields
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError, AnsibleOptionsError
from ansible.template import Templar

from ansible_mitogen_svc.controller.compat.strategy_options import define_options

_SAFE_NAME = re.compile(r"[a-zA-Z_]\w*(\.[a-zA-Z_]\w*)+")
_POOL_LIMIT = 1024


@dataclass(frozen=True)
class Settings:
    """Values of the options, in the types the rest of the controller uses.

    `stats_path`: file for the statistics, or None. `task_workers`: ``auto`` or ``fork``. `safe_plugins`: names of
    plugins and collections that may run in threads. `local_command_plugins`: names of further connection plugins that
    start a local program for each command. `pool_size`: threads of the pool that serves targets' requests.
    `identity_limit`: warm Pythons per host beside the login user's. `connection_limit`: connections open at once, 0 for
    what the limit of open files has room for.
    `packing_cache`: whether what packing a module found out stays between runs. `packing_cache_path`: the directory for
    it, or None for the default one. `sources`: where each value comes from, for messages.
    """

    stats_path: str | None = None
    task_workers: str = "auto"
    safe_plugins: tuple[str, ...] = ()
    local_command_plugins: tuple[str, ...] = ()
    pool_size: int = 16
    identity_limit: int = 20
    connection_limit: int = 0
    packing_cache: bool = True
    packing_cache_path: str | None = None
    sources: dict[str, str] = field(default_factory=dict, compare=False)


_current = Settings()


def current() -> Settings:
    """The settings of the running play, or the defaults before the first one."""
    return _current


def activate(settings: Settings) -> None:
    """Make `settings` those of the running play."""
    global _current
    _current = settings


def load(strategy: Any, play: Any) -> Settings:
    """Read all options of the strategy object `strategy` for `play`.

    :raises AnsibleOptionsError: a value does not parse; names option, value, source and what to write instead.
    """
    plugin_name = strategy._load_name
    known = define_options(plugin_name, strategy_documentation(strategy), strategy._original_path)
    names = {entry["name"] for definition in known.values() for entry in definition.get("vars") or ()}
    variables = _templated(names, strategy, play)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in (each.name for each in fields(Settings) if each.name != "sources"):
        values[option], sources[option] = _value(plugin_name, option, variables)
        _check(option, values[option], sources[option])
    for option in ("safe_plugins", "local_command_plugins"):
        values[option] = tuple(str(name) for name in values[option] or ())
    return Settings(**values, sources=sources)


def _definitions(plugin_name: str) -> dict[str, Any]:
    return dict(constants.config.get_configuration_definitions("strategy", plugin_name))


def strategy_documentation(strategy: Any) -> str:
    """DOCUMENTATION of the module a strategy object's class comes from."""
    return str(sys.modules[type(strategy).__module__].DOCUMENTATION)


def _templated(names: set[str], strategy: Any, play: Any) -> dict[str, Any]:
    variables = strategy._variable_manager.get_vars(play=play)
    templar = Templar(loader=strategy._loader, variables=variables)
    return {name: templar.template(variables[name]) for name in sorted(names) if name in variables}


def _value(plugin_name: str, option: str, variables: dict[str, Any]) -> tuple[Any, str]:
    try:
        value, origin = constants.config.get_config_value_and_origin(
            option, plugin_type="strategy", plugin_name=plugin_name, variables=variables
        )
    except AnsibleError:
        raw, source = _raw(plugin_name, option, variables)
        # Core's own words would be shown behind ours, as the cause; they say nothing that ours do not.
        raise _invalid(option, raw, source, _remedy(_definitions(plugin_name)[option])) from None
    return value, str(origin)


def _raw(plugin_name: str, option: str, variables: dict[str, Any]) -> tuple[Any, str]:
    """The value that did not parse, as it is written, and where."""
    known = _definitions(plugin_name)[option]
    for entry in known.get("vars") or ():
        if entry["name"] in variables:
            return variables[entry["name"]], f"the variable {entry['name']}"
    for entry in known.get("env") or ():
        if entry["name"] in os.environ:
            return os.environ[entry["name"]], f"the environment variable {entry['name']}"
    for entry in known.get("ini") or ():
        place = f"[{entry['section']}] {entry['key']} in {constants.CONFIG_FILE}"
        # As core reads it: configuration files are ini files.
        parser = configparser.ConfigParser(inline_comment_prefixes=(";",), interpolation=None)
        parser.read(constants.CONFIG_FILE or ())
        return parser.get(entry["section"], entry["key"], fallback="the value there"), place
    return known.get("default"), "its default"


def _remedy(known: dict[str, Any]) -> str:
    if known.get("choices"):
        return f"Use one of: {', '.join(known['choices'])}."
    return f"Use a value of type {known.get('type', 'string')}."


def _invalid(option: str, value: Any, source: str, remedy: str) -> AnsibleOptionsError:
    return AnsibleOptionsError(
        f"ansible_mitogen.svc: option {option!r} cannot be {value!r}, which comes from {source}. {remedy}"
    )


def _check(option: str, value: Any, source: str) -> None:
    if option == "pool_size" and not 1 <= value <= _POOL_LIMIT:
        raise _invalid(option, value, source, f"Use a number from 1 to {_POOL_LIMIT}.")
    if option == "identity_limit" and value < 1:
        raise _invalid(option, value, source, "Use a number from 1 up.")
    if option == "connection_limit" and value < 0:
        raise _invalid(option, value, source, "Use a number from 1 up, or 0 for what open files have room for.")
    if option in ("safe_plugins", "local_command_plugins"):
        for name in value or ():
            if not _SAFE_NAME.fullmatch(str(name)):
                remedy = "Use fully qualified plugin names (ns.collection.plugin) or collection names (ns.collection)."
                raise _invalid(option, name, source, remedy)
    if option == "stats_path" and value:
        directory = os.path.dirname(os.path.abspath(value))
        if not os.path.isdir(directory):
            raise _invalid(option, value, source, f"Create the directory {directory}, or name a file in another one.")
