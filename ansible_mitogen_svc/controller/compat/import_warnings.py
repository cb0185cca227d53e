# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Repeats, for each task that uses a plugin, the warnings that the plugin gave while it was imported.

Installed by the adapter in PluginLoader, inside the loader's lock (controller/workers/locks.py), which guards the
tables below. Called in the main thread, in worker threads, and in forked workers, which know what was known when they
were forked.

Theory of operation

1. Under core a task's process imports the plugins that the task uses. What says at its top that it is deprecated, as
   `ansible.module_utils.six` does since 2.22, says it in each such process, and each task has it in its result.
   Here many tasks share a process, and Python executes a module once.
2. While a plugin is loaded for a task, every warning that its DeferredWarningContext is given is noted with the module
   that was being executed, and for the plugin's file.
3. Modules that an earlier plugin has imported say nothing when a second one is loaded. Once any module has warned,
   a plugin's import statements are therefore looked at, and those of the modules of collections that it imports: the
   warnings of all modules that are found belong to the plugin too. Core's own modules are not looked into, as core does
   not import what it has deprecated.
4. When the loader gives out a plugin that has such warnings, the task's context gets them; it keeps one of each. A
   plugin without any costs one question of an empty table.
5. What was imported outside any task, as by an inventory plugin, has warned there, under core too, and is not noted.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

from ansible._internal._display_utils import DeferredWarningContext

_COLLECTIONS = "ansible_collections."
_CORE = "ansible_collections.ansible."
_HAVE_STATEMENTS = ast.stmt, ast.excepthandler, ast.match_case

#: Name of a module -> the warnings that it gave while it was executed.
_of_modules: dict[str, list[Any]] = {}
#: File of a plugin -> the warnings of all that it imports.
_of_plugins: dict[str, list[Any]] = {}


def noting(core: Callable[..., ModuleType]) -> Callable[..., ModuleType]:
    """`PluginLoader._load_module_source`."""

    @functools.wraps(core)
    def load(self: Any, *, python_module_name: str, path: str) -> ModuleType:
        context = DeferredWarningContext.current(optional=True)
        if context is None or python_module_name in sys.modules:
            return core(self, python_module_name=python_module_name, path=path)
        with _listening(context) as heard:
            module = core(self, python_module_name=python_module_name, path=path)
        if _of_modules:
            heard.extend(warning for name in imports(python_module_name) for warning in _of_modules.get(name, ()))
        if heard:
            _of_plugins[path] = heard
        return module

    return load


def repeating(core: Callable[..., Any]) -> Callable[..., Any]:
    """`PluginLoader.get_with_context`."""

    @functools.wraps(core)
    def get_with_context(self: Any, name: str, *arguments: Any, **keywords: Any) -> Any:
        given = core(self, name, *arguments, **keywords)
        if _of_plugins:
            context = DeferredWarningContext.current(optional=True)
            for warning in _of_plugins.get(given.plugin_load_context.plugin_resolved_path, ()) if context else ():
                context.capture(warning)
        return given

    return get_with_context


@contextlib.contextmanager
def _listening(context: Any) -> Iterator[list[Any]]:
    """What `context` is given meanwhile; notes which module it came from, if one was being executed."""
    heard: list[Any] = []
    capture, own = context.capture, vars(context)
    outer = own.get("capture")  # of a plugin whose import loads another one

    def note(warning: Any) -> None:
        name = _executed_module()
        if name is not None and warning not in _of_modules.setdefault(name, []):
            _of_modules[name].append(warning)
        heard.append(warning)
        capture(warning)

    own["capture"] = note
    try:
        yield heard
    finally:
        del own["capture"]
        if outer is not None:
            own["capture"] = outer


def _executed_module() -> str | None:
    """The module being loaded whose top level has called, by however many functions, the caller of the caller."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals is not globals():
        if frame.f_code.co_name == "<module>":
            return str(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return None


def imports(plugin: str) -> Iterator[str]:
    """Names the imported module `plugin`, and all that it, and the collections' modules among them, may have imported.

    Names of things in modules, which look the same in an import statement, are among them.
    """
    waiting, seen = [plugin], {plugin}
    while waiting:
        name = waiting.pop()
        yield name
        if name == plugin or (name.startswith(_COLLECTIONS) and not name.startswith(_CORE)):
            new = set(_imported_by(sys.modules.get(name))) - seen
            seen |= new
            waiting.extend(sorted(new))


def _imported_by(module: ModuleType | None) -> Iterator[str]:
    file = getattr(module, "__file__", None)
    if file is None:
        return
    try:
        tree = ast.parse(pathlib.Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for statement in _executed_statements(tree):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            origin = _origin(module, statement)
            names = [f"{origin}.{alias.name}" for alias in statement.names] if origin else []
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _origin(module: Any, statement: ast.ImportFrom) -> str | None:
    """The full name of what `statement` in `module` imports from."""
    relative = "." * statement.level + (statement.module or "")
    try:
        return importlib.util.resolve_name(relative, module.__spec__.parent)
    except (ImportError, AttributeError):
        return None


def _executed_statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All that is executed when a module is, which the bodies of its functions are not."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting.extend(part for part in ast.iter_child_nodes(node) if isinstance(part, _HAVE_STATEMENTS))
