# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Remembers settings of ansible-core itself that are asked for with each task, such as whether its debugger is wanted.

Installed by `caches.py` in place of `ConfigManager.get_config_value_and_origin`; called in any thread.

What a setting is that belongs to no plugin depends on its definition, the command line, the environment and the
configuration file, and on the variables that its definition names: as long as the `Surroundings` are the same
(plugin_options.py) and none of these variables is set, so is the setting. Settings whose use has an effect, or whose
default is a template, are asked for each time; so is whatever is asked for with more than a name and variables.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ansible_mitogen_svc.controller.compat.plugin_options import Surroundings, is_fresh

Setting = tuple[Any, Any]


def remembering(core: Callable[..., Setting]) -> Callable[..., Setting]:
    """`ConfigManager.get_config_value_and_origin`."""
    surroundings: Surroundings | None = None
    #: {name: definition, value and origin when no variable sets it}
    known: dict[str, tuple[Any, Setting]] = {}

    def get_config_value_and_origin(self: Any, config: str, *arguments: Any, **keywords: Any) -> Setting:
        nonlocal surroundings, known
        variables = keywords.pop("variables", None)
        if any(value is not None for value in (*arguments, *keywords.values())):
            return core(self, config, *arguments, variables=variables, **keywords)
        if surroundings is None or not surroundings.still(self):
            # A thread that is about to remember something writes into the dict it has, which nobody reads any more.
            known = {}
            surroundings = Surroundings(self)
        memory = known
        definition = self._base_defs.get(config)
        if definition is None or _is_set(definition, variables):
            return core(self, config, variables=variables)
        entry = memory.get(config)
        if entry is None or entry[0] is not definition:
            if is_fresh(definition):
                return core(self, config, variables=variables)
            entry = memory[config] = definition, core(self, config)
        value, origin = entry[1]
        return copy.copy(value) if isinstance(value, (list, dict)) else value, origin

    return get_config_value_and_origin


def _is_set(definition: Any, variables: Any) -> bool:
    """Whether a variable sets it."""
    return bool(variables) and any(variables.get(entry["name"]) is not None for entry in definition.get("vars") or ())
