# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Remembers the options of a connection, shell or become plugin for as long as everything they come from is the same.

Installed by `caches.py` in place of ConfigManager.get_plugin_options_and_origins, and of two that look things up in the
definitions of a plugin's options; called in any thread.

Theory of operation
1. Core sets the options of a task's connection anew for each task: 30 options of ssh, each looked for in variables,
   keywords, command line, environment and configuration file.
2. The definitions of a plugin's options name all their sources. A `Sources` lists them, once per plugin. What a call's
   result depends on is then: the values of the named variables and keywords (its key), and things that change
   rarely if ever (the `Surroundings`: environment, command line, configuration file), whose change empties the memory.
3. Values in a key count by what they are and, because they carry tags (where they come from, whether they may be
   templates), by which object they are. The memory holds the objects, so that no other can take their identity.
   A list or dict that is not empty can change without being another: such a call goes to core.
4. Some options are asked for each time: those whose default is a template, or whose use has an effect (a warning that
   they are deprecated, a new temporary directory), and secrets that the call gives: none is ever remembered.
5. Lists and dicts among the remembered values are handed out as copies.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible import context

#: Entries kept per plugin; beyond that its memory starts anew.
LIMIT = 2048

#: Types of plugins whose options are set for each task from plain dicts.
_TYPES = frozenset({"become", "connection", "shell"})
_SECRET = re.compile("pass|secret|token|pkcs11|private_key$")
_EFFECTIVE_TYPES = frozenset({"tmp", "temp", "tmppath"})
_PATH_TYPES = frozenset({"path", "pathspec", "pathlist"})
_SCALARS = (str, int, float)
_EXACT = frozenset({str, int, float, bool})

Options = tuple[dict[str, Any], dict[str, Any]]


class Sources:
    """What the options of one plugin come from.

    Attributes:
        definitions: core's, of which this was made.
        fresh: options that are asked for each time.
        secret: options that are asked for when a call gives them a value.
    """

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.definitions = definitions
        self.fresh = tuple(name for name, definition in definitions.items() if is_fresh(definition))
        self.secret = tuple(name for name, each in definitions.items() if _is_secret(name, each))
        remembered = [name for name in definitions if name not in (*self.fresh, *self.secret)]
        self.paths = any(definitions[name].get("type") in _PATH_TYPES for name in remembered)
        self._variables = _variables(definitions, remembered)
        self._keywords = _keywords(definitions, remembered)
        self._secret_variables = _variables(definitions, self.secret)
        self._secret_keywords = _keywords(definitions, self.secret)

    def has_secrets(self, keys: Mapping[str, Any] | None, variables: Mapping[str, Any] | None) -> bool:
        """Whether a call gives a value to a secret option."""
        for names, values in ((self._secret_keywords, keys), (self._secret_variables, variables)):
            if values and any(values.get(name) is not None for name in names):
                return True
        return False

    def key(self, keys: Mapping[str, Any] | None, variables: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
        """What tells a call from others, with the objects it is made of; `None` when it cannot be told."""
        parts: list[Any] = [bool(keys), bool(variables), os.getcwd() if self.paths else None]
        for names, values in ((self._keywords, keys), (self._variables, variables)):
            for name in names if values else ():
                # None is as good as absent.
                value = values.get(name)  # type: ignore[union-attr]
                if value is None:
                    continue
                if type(value) not in _EXACT:
                    if isinstance(value, _SCALARS):
                        value = _SameObject(value)
                    elif value:
                        return None
                    else:
                        value = type(value)
                parts += name, type(value), value
        return tuple(parts)


def _variables(definitions: Mapping[str, Any], options: Iterable[str]) -> tuple[str, ...]:
    """Names of the variables that core looks at for `options`."""
    return tuple(dict.fromkeys(entry["name"] for name in options for entry in definitions[name].get("vars") or ()))


def _keywords(definitions: Mapping[str, Any], options: Iterable[str]) -> tuple[str, ...]:
    """Keywords that core looks at for `options`: those named, the option's own name, its aliases."""
    names: list[str] = []
    for name in options:
        named = [entry["name"] for entry in definitions[name].get("keyword") or ()]
        names += [*named, name, *definitions[name].get("aliases", ())]
    return tuple(dict.fromkeys(names))


class _SameObject:
    """Equal to itself in another wrapping, and to nothing else."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameObject) and other.value is self.value


def _is_secret(name: str, definition: Mapping[str, Any]) -> bool:
    return bool(_SECRET.search(name) or definition.get("secret") or definition.get("no_log"))


def is_fresh(definition: Mapping[str, Any]) -> bool:
    """Whether asking for an option has an effect, or its default depends on more than its definition says."""
    default = definition.get("default")
    entries = [entry for kind in ("vars", "keyword", "cli", "env", "ini") for entry in definition.get(kind) or ()]
    return bool(
        definition.get("required")
        or "deprecated" in definition
        or any("deprecated" in entry for entry in entries)
        or str(definition.get("type")).lower() in _EFFECTIVE_TYPES
        or (isinstance(default, str) and "{{" in default)
        or isinstance(default, dict)
        or (isinstance(default, list) and not all(isinstance(item, _SCALARS) for item in default))
    )


class Surroundings:
    """What options come from that is no argument of the call."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._parts = self._now(config)
        self._environment = dict(os.environ)
        self._raw = getattr(os.environ, "_data", None)
        self._raw_copy = None if self._raw is None else dict(self._raw)

    @staticmethod
    def _now(config: Any) -> tuple[Any, ...]:
        return context.CLIARGS, config._config_file, config._parsers.get(config._config_file)

    def still(self, config: Any) -> bool:
        """Whether nothing of it has changed."""
        if config is not self._config or any(a is not b for a, b in zip(self._parts, self._now(config), strict=True)):
            return False
        if self._raw is not None and self._raw is getattr(os.environ, "_data", None):
            return bool(self._raw == self._raw_copy)
        return dict(os.environ) == self._environment


class OptionMemory:
    """Options by plugin and call."""

    def __init__(self) -> None:
        self._surroundings: Surroundings | None = None
        self._plugins: dict[tuple[str, str], tuple[Sources, dict[tuple[Any, ...], Options]]] = {}

    def plugin(self, config: Any, plugin_type: str, name: str) -> tuple[Sources, dict[tuple[Any, ...], Options]]:
        """The sources of a plugin's options and what is remembered of it."""
        surroundings = self._surroundings
        if surroundings is None or not surroundings.still(config):
            # Threads that are about to remember something write into the dict they have, which nobody reads any more.
            self._plugins = {}
            self._surroundings = Surroundings(config)
        plugins = self._plugins
        definitions = config.get_configuration_definitions(plugin_type=plugin_type, name=name)
        found = plugins.get((plugin_type, name))
        if found is None or found[0].definitions is not definitions or len(found[1]) > LIMIT:
            found = plugins[plugin_type, name] = Sources(definitions), {}
        return found


def remembering(core: Callable[..., Options]) -> Callable[..., Options]:
    """`ConfigManager.get_plugin_options_and_origins`."""
    memory = OptionMemory()

    def get_plugin_options_and_origins(
        self: Any, plugin_type: str, name: str, keys: Any = None, variables: Any = None, direct: Any = None
    ) -> Options:
        if direct or plugin_type not in _TYPES:
            return core(self, plugin_type, name, keys=keys, variables=variables, direct=direct)
        sources, known = memory.plugin(self, plugin_type, name)
        asked = sources.fresh
        if sources.has_secrets(keys, variables):
            asked = (*asked, *sources.secret)
        key = sources.key(keys, variables)
        found = None if key is None else known.get((len(asked), key))
        if key is None or found is None:
            result = core(self, plugin_type, name, keys=keys, variables=variables, direct=direct)
            if key is not None and sources.definitions:
                options, origins = _copied(result)
                known[len(asked), key] = options | dict.fromkeys(asked), origins
            return result
        options, origins = _copied(found)
        for option in asked:
            options[option], origins[option] = self.get_config_value_and_origin(
                option, plugin_type=plugin_type, plugin_name=name, keys=keys, variables=variables, direct=direct
            )
        return options, origins

    return get_plugin_options_and_origins


def _copied(result: Options) -> Options:
    """The same options in dicts, and lists, of their own."""
    options, origins = result
    copied = {name: copy.copy(value) if isinstance(value, (list, dict)) else value for name, value in options.items()}
    return copied, dict(origins)


def looking_up(core: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """`ConfigManager.get_plugin_vars` and `get_plugin_options_from_var`, which search definitions each time."""
    known: dict[tuple[str, ...], tuple[Any, list[str]]] = {}

    def look_up(self: Any, plugin_type: str, name: str, *variable: str) -> list[str]:
        definitions = self.get_configuration_definitions(plugin_type=plugin_type, name=name)
        entry = known.get((plugin_type, name, *variable))
        if entry is None or entry[0] is not definitions:
            entry = known[plugin_type, name, *variable] = definitions, core(self, plugin_type, name, *variable)
        return entry[1].copy()

    return look_up
