# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Repeats, for each task that uses a plugin, the warnings that the plugin gave while it was imported.

Installed by the adapter around core's functions; called in the main thread, in worker threads, and in forked workers,
which know what was known when they were forked. Plugins are given out inside the loader's lock (workers/locks.py).

Theory of operation

1. Under core a task's process imports the plugins that the task uses. What says at its top that it is deprecated, as
   `ansible.module_utils.six` does since 2.22, says it in each such process, and each task has it in its result.
   Here many tasks share a process, and Python executes a module once.
2. Whatever a task's DeferredWarningContext is given is noted for each module that is being executed just then: for the
   one that speaks, and for those that import it. Likewise for the loaders of filters and tests, when they go through
   the files beside a playbook and in roles; a process does that once, too.
3. When the loader gives out a plugin, the task's context gets what was noted for all that such a plugin imports; it
   keeps one of each. As what was imported already does not show when a second plugin imports it, the plugin's import
   statements are looked at, and those of modules of collections among what it imports. Core does not import what it
   has deprecated; its modules are not looked into.
4. As long as no module has said anything, as nearly always, a plugin costs one question of an empty table.
5. What a process has imported outside of any task says nothing in its tasks. So what is said there is not noted, and
   what was noted before is shown, and forgotten, when a plugin that imports it is given out there.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import ansible
from ansible._internal._display_utils import DeferredWarningContext
from ansible.module_utils._internal._messages import DeprecationSummary
from ansible.utils.display import Display

_CORE = os.path.join(os.path.dirname(ansible.__file__), "")
_COLLECTIONS = "ansible_collections."
_FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef
_HAVE_STATEMENTS = ast.stmt, ast.excepthandler, ast.match_case

#: Name of a module, or a loader of filters or tests -> what was said while it was executed.
_said: dict[Any, list[Any]] = {}


def noting(core: Callable[..., None]) -> Callable[..., None]:
    """`DeferredWarningContext.capture`."""

    @functools.wraps(core)
    def capture(self: Any, warning: Any) -> None:
        for speaker in _being_executed():
            said = _said.setdefault(speaker, [])
            if warning not in said:
                said.append(warning)
        core(self, warning)

    return capture


def repeating(core: Callable[..., Any]) -> Callable[..., Any]:
    """`PluginLoader.get_with_context`, and that of `Jinja2Loader`."""

    @functools.wraps(core)
    def get_with_context(self: Any, name: str, *arguments: Any, **keywords: Any) -> Any:
        given = core(self, name, *arguments, **keywords)
        if _said:
            module = self._module_cache.get(given.plugin_load_context.plugin_resolved_path)
            _repeat((self, *(imports(module.__name__) if module else ())))
        return given

    return get_with_context


def _repeat(speakers: tuple[Any, ...]) -> None:
    context, display = DeferredWarningContext.current(optional=True), Display()
    said = dict.fromkeys(each for speaker in speakers for each in _said.get(speaker, ()))
    if context is not None:
        for warning in said:
            context.capture(warning)
    elif not display._final_q:  # true for a thread, or a process, that runs a task
        for noted in list(_said.values()):
            noted[:] = [each for each in noted if each not in said]
        for warning in said:
            (display._deprecated if isinstance(warning, DeprecationSummary) else display._warning)(warning)


def _being_executed() -> Iterator[Any]:
    """What is on the stack: modules but for the program itself, loaders that go through their files."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            yield frame.f_globals.get("__name__")
        elif frame.f_code.co_name == "_ensure_non_collection_wrappers":
            yield frame.f_locals.get("self")
        frame = frame.f_back  # type: ignore[assignment]


@functools.cache
def imports(plugin: str) -> tuple[str, ...]:
    """Names the imported module `plugin`, and all that it, and the collections' modules among them, may have imported.

    Names of things in modules, which look the same in an import statement, are among them.
    """
    found = [plugin]
    for name in found:
        if name == plugin or name.startswith(_COLLECTIONS):
            found += dict.fromkeys(each for each in _imported_by(name) if each not in found)
    return tuple(found)


def _imported_by(name: str) -> list[str]:
    module = sys.modules.get(name)
    file, spec = getattr(module, "__file__", None), getattr(module, "__spec__", None)
    if file is None or spec is None or file.startswith(_CORE):
        return []
    try:
        tree = ast.parse(pathlib.Path(file).read_bytes())
        names = [each for node in _executed(tree) for each in _named(node, spec.parent)]
    except (AttributeError, ImportError, OSError, SyntaxError, ValueError):
        return []
    return [prefix for each in names for prefix in itertools.accumulate(each.split("."), "{}.{}".format)]


def _executed(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that are executed when a module is: not those in functions, or for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif isinstance(child, _HAVE_STATEMENTS) and not isinstance(child, _FUNCTIONS):
            yield from _executed(child)


def _named(statement: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Full names of what `statement` imports, in a module of `package`."""
    names = [alias.name for alias in statement.names]
    if isinstance(statement, ast.Import):
        return names
    origin = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
    return [f"{origin}.{name}" for name in names]
