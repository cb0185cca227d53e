# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Remembers the code of plain templates: core compiles those of a task anew for each item of a loop and each host.

Installed once per process by the executor; used in any worker and in the main thread.

Theory of operation
1. Core makes a new template engine, and Jinja a new Python function, whenever a template is used; two thirds of a
   millisecond go into each for ``{{ item }}``. The code itself is a function of the text and of Jinja's configuration.
2. That holds for *plain* texts: names, attributes and numbers in braces, and text around them. With a filter or a
   test in it, code depends on plugins, and finding those may say something: such texts are compiled by core.
3. The key has the text, the class of the environment, its delimiters and its extensions. Everything else that code is
   made from is the same in all of core's environments; `KNOWN` says of which sources that was found.
4. An expression is parsed by Jinja each time, and only then looked up: there Jinja compiles nodes, not a text.

Checked on ansible-core 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1 with Jinja 3.1.6. With other sources, or
where they cannot be read, nothing is replaced.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import threading
from types import CodeType
from typing import Any

#: Digest of the sources of what `_made_from` lists.
KNOWN = frozenset({"034efd7cb39aff3f"})
#: Templates remembered; all are forgotten when there are more.
KEPT = 4096
_REFERENCE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[\d+\])*"
_EXPRESSION = re.compile(_REFERENCE, re.ASCII)
_TEMPLATE = re.compile(rf"[^{{}}%#\\]*(?:\{{\{{ ?{_REFERENCE} ?\}}\}}[^{{}}%#\\]*)+", re.ASCII)

_Key = tuple[Any, ...]


class _Expression(threading.local):
    """The expression that this thread compiles."""

    text: str | None = None


_codes: dict[_Key, CodeType] = {}
_expression = _Expression()


def _made_from(bits: Any) -> tuple[Any, ...]:
    own = bits.AnsibleEnvironment
    jinja = next(each for each in own.__mro__ if each.__module__ == "jinja2.environment")
    return (
        jinja.compile,
        jinja._generate,
        jinja.compile_expression,
        jinja.from_string,
        own._parse,
        own._compile,
        own.compile_expression,
        own.from_string,
        bits.AnsibleCodeGenerator,
        bits.AnsibleLexer,
        bits._TemplateCompileContext,
    )


def install() -> bool:
    """Install the memory; whether this core and this Jinja are known. Doing it again changes nothing."""
    try:
        from ansible._internal._templating import _jinja_bits

        environment = _jinja_bits.AnsibleEnvironment
        if "compile" in vars(environment):
            return True
        text = "".join(map(inspect.getsource, _made_from(_jinja_bits)))
        fields = tuple(_jinja_bits._TEMPLATE_OVERRIDE_FIELD_NAMES)
        debugs = environment._debuggable_template_source
    except (AttributeError, ImportError, OSError, StopIteration, TypeError):
        return False  # something has another name or form, or was installed without its sources
    if hashlib.sha256(text.encode()).hexdigest()[:16] not in KNOWN or debugs:
        return False
    environment.compile = _compiling(environment.compile, fields)
    environment.compile_expression = _compiling_expressions(environment.compile_expression)
    return True


def _key(environment: Any, fields: tuple[str, ...], kind: str, text: str) -> _Key:
    values = [getattr(environment, name) for name in fields]
    # str() drops tags: what core knows of a text's origin is not in its code.
    return (kind, str.__str__(text), type(environment), tuple(environment.extensions), *values)


def _compiling(core: Any, fields: tuple[str, ...]) -> Any:
    def compile(self: Any, source: Any, *arguments: Any, **keywords: Any) -> Any:
        key = None
        if not arguments and not keywords:
            if isinstance(source, str):
                key = _key(self, fields, "template", source) if _TEMPLATE.fullmatch(source) else None
            elif _expression.text is not None:
                key = _key(self, fields, "expression", _expression.text)
        if key is None:
            return core(self, source, *arguments, **keywords)
        code = _codes.get(key)
        if code is None:
            code = core(self, source)
            if len(_codes) >= KEPT:
                _codes.clear()
            _codes[key] = code
        return code

    return compile


def _compiling_expressions(core: Any) -> Any:
    def compile_expression(self: Any, source: Any, *arguments: Any, **keywords: Any) -> Any:
        if not _EXPRESSION.fullmatch(source):
            return core(self, source, *arguments, **keywords)
        _expression.text = source
        try:
            return core(self, source, *arguments, **keywords)
        finally:
            _expression.text = None

    return compile_expression
