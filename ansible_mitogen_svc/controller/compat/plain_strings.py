# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Strings that are no templates, on the way through core's template engine and through copies.

Installed by `caches.py` in place of `TemplateEngine.template` and as `__deepcopy__` of core's tagged strings; called in
any thread. Nothing is remembered here.

Core sets up three contexts around each value it templates, some 20 of them per task that are plain strings (addresses,
users, paths). A string without ``{`` that does not start with an override header cannot be a template; core gives it
back as it is, unless it carries a tag that has an effect: `Deprecated` when it is read, a constant of Jinja when it is
done. Neither a string nor its tags can change, so a deep copy may be the string itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
from ansible._internal._templating._jinja_bits import JINJA2_OVERRIDE, TemplateOverrides
from ansible.module_utils._internal._datatag import _AnsibleTaggedStr

#: Tags that say something about a string and do nothing.
_SILENT = frozenset({Origin, TrustedAsTemplate})


def passing_on(core: Callable[..., Any]) -> Callable[..., Any]:
    """`TemplateEngine.template`."""

    def template(self: Any, variable: Any, **keywords: Any) -> Any:
        kind = type(variable)
        if (
            (kind is str or kind is _AnsibleTaggedStr and _SILENT.issuperset(variable._ansible_tags_mapping))
            and "{" not in variable
            and not variable.startswith(JINJA2_OVERRIDE)
            and ("options" not in keywords or keywords["options"].overrides is TemplateOverrides.DEFAULT)
        ):
            return variable
        return core(self, variable, **keywords)

    return template


def copied_as_itself(core: Any) -> Callable[..., Any]:
    """`__deepcopy__` of tagged strings, which core lets Python take apart, down to each tag."""

    def deepcopy(self: Any, memo: Any) -> Any:
        return self

    return deepcopy
