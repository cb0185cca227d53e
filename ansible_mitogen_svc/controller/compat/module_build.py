# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Remembers what core found out about module_utils files, so that packing the next module does not parse them again.

Installed once per process by the executor; used in any worker. Core packs each module once per run, and for each parses
the same sixty and more files of `ansible.module_utils` to learn what they import: most of 85 ms per module.

Theory of operation
1. ansible/executor/module_common.py parses a file with `ModuleDepFinder`; up to 2.20 `_compile_module_ast` is
   called before, from 2.21 on inside. The first one's constructor is replaced, and up to 2.20 the second one.
2. For files of module_utils, and only for them, what a finder learned is kept by (name, content, whether it is a
   package) and given to the next one. Core reads `submodules`, `optional_imports` and `embeds` of it and changes
   nothing.
3. Syntax trees are not kept: they are two orders of magnitude larger than what was learned from them.
4. A file of which Python warns while it is parsed is not remembered: core would let it warn again.

Checked on ansible-core 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1. Where a name or a signature differs nothing is replaced.
"""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.executor import module_common

#: First parameters of the finder, by what they are called in the two generations of core.
_SIGNATURES = (("module_fqn", "tree", "is_pkg_init"), ("module_fqn", "module_data", "is_pkg_init"))


_MARK = "_ansible_mitogen_svc_memory"


class _SourceWarnings(threading.local):
    """How many of Python's warnings were shown in this thread since `remember_imports`."""

    count = 0


source_warnings = _SourceWarnings()


@dataclass(frozen=True)
class _Source:
    """A file that is not parsed yet, and perhaps never will be."""

    name: str
    text: Any


def remember_imports() -> bool:
    """Install the memory; whether this core has what it needs. Doing it again changes nothing."""
    finder = getattr(module_common, "ModuleDepFinder", None)
    compiler = getattr(module_common, "_compile_module_ast", None)
    if not isinstance(finder, type) or compiler is None:
        return False
    if hasattr(finder, _MARK):
        return True
    parameters = tuple(inspect.signature(finder).parameters)[:3]
    if parameters not in _SIGNATURES or tuple(inspect.signature(compiler).parameters) != ("module_name", "source_code"):
        return False
    _count_warnings()
    memory = _Memory(finder, compiler)
    setattr(finder, _MARK, memory)
    # The class itself stays: core's constructor names it in a call of super().
    finder.__init__ = lambda self, *arguments, **keywords: memory.initialize(self, *arguments, **keywords)  # type: ignore
    if parameters[1] == "tree":
        module_common._compile_module_ast = memory.compile
    return True


class _Memory:
    """What finders learned, by file. Any thread may use it."""

    def __init__(self, finder: type, compiler: Callable[[str, Any], Any]) -> None:
        self._initialize: Callable[..., None] = finder.__init__  # type: ignore[misc]
        self._compiler = compiler
        self._known: dict[tuple[str, bytes, bool], dict[str, Any]] = {}

    def compile(self, module_name: str, source_code: Any) -> Any:
        """Core's `_compile_module_ast`, put off for files of module_utils."""
        if _is_module_utils(module_name):
            return _Source(module_name, source_code)
        return self._compiler(module_name, source_code)

    def initialize(self, finder: Any, module_fqn: str, content: Any, is_pkg_init: bool = False) -> None:
        """Core's constructor, or the attributes that it gave for the same file before."""
        text = content.text if isinstance(content, _Source) else content
        if not _is_module_utils(module_fqn) or not isinstance(text, (bytes, str)):
            self._initialize(finder, module_fqn, content, is_pkg_init)
            return
        key = (module_fqn, text if isinstance(text, bytes) else text.encode(), is_pkg_init)
        known = self._known.get(key)
        if known is not None:
            vars(finder).update(known)
            return
        warned = source_warnings.count
        parsed = self._compiler(content.name, text) if isinstance(content, _Source) else content
        self._initialize(finder, module_fqn, parsed, is_pkg_init)
        if source_warnings.count == warned:
            self._known[key] = {name: value for name, value in vars(finder).items() if name != "tree"}


def _count_warnings() -> None:
    before = warnings.showwarning

    def showwarning(*arguments: Any, **keywords: Any) -> None:
        source_warnings.count += 1
        before(*arguments, **keywords)

    warnings.showwarning = showwarning


def _is_module_utils(name: str) -> bool:
    return name.startswith("ansible.module_utils.") or ".plugins.module_utils." in name
