# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Tells filters and tests that only compute from those whose process would remember something of it.

Asked by plugin_policy.py in any thread. Under core each task has a process of its own, so what a filter keeps in its
module (a cache of files, a counter), or does to its process (the environment, the working directory), is gone with
the task. Most filters keep nothing, and need no process. Their source is looked at, not at what it imports.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

_REMEMBERING = frozenset({"cache", "cached_property", "lru_cache"})
_CHANGING = frozenset(
    "add append appendleft clear discard extend insert pop popitem popleft remove reverse setdefault sort "
    "update".split()
)
#: What concerns the whole process: (module, what is called or changed in it).
_OF_PROCESS = frozenset(
    {
        *(("os", name) for name in ("chdir", "environ", "putenv", "umask", "unsetenv")),
        *(("random", "seed"), ("locale", "setlocale"), ("time", "tzset"), ("socket", "setdefaulttimeout")),
        *(("sys", name) for name in ("modules", "path", "setrecursionlimit")),
    }
)
#: Classes of which core makes one object for all calls.
_KEPT_OBJECTS = frozenset({"FilterModule", "TestModule"})
_READING = frozenset({"copy", "get", "items", "keys", "values"})


@functools.cache
def keeps_state(path: str) -> bool:
    """Whether the plugins in a file may remember something between calls, or change their process.

    What cannot be read, or parsed, may do anything.
    """
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return True
    outside = frozenset(_names_outside(tree))
    return any(map(_remembers, ast.walk(tree))) or any(
        _changes(node, names) for function, names in _functions(tree, outside) for node in ast.walk(function)
    )


def _functions(tree: ast.AST, outside: frozenset[str]) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """Functions, with the names that stand for something there which outlives a call."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node, outside
        elif isinstance(node, ast.ClassDef) and node.name in _KEPT_OBJECTS:
            yield from _functions(node, outside | {"self", "cls"})
        else:
            yield from _functions(node, outside)


def _names_outside(tree: ast.Module) -> Iterator[str]:
    """Names of what a module makes once: values, and classes, which may have values."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
        if isinstance(node, ast.ClassDef):
            yield node.name


def _remembers(node: ast.AST) -> bool:
    """Whether this is a way to remember: a global variable, a cache, a default that can change."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        defaults = [*node.args.defaults, *node.args.kw_defaults]
        return any(map(_is_cache, node.decorator_list)) or any(
            isinstance(each, (ast.Dict, ast.List)) for each in defaults
        )
    return isinstance(node, ast.Global)


def _is_cache(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return "cache" in name or name in _REMEMBERING or "memo" in name


def _changes(node: ast.AST, outside: frozenset[str]) -> bool:
    """Whether this changes something that outlives the call."""
    if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        return _root(node) in outside or _is_of_process(node)
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id == "next" and any(_root(each) in outside for each in node.args)
    if isinstance(node.func, ast.Attribute):
        on = node.func.value
        return node.func.attr in _CHANGING and _root(on) in outside or _is_of_process(node.func)
    return False


def _root(node: ast.AST) -> str:
    """The name at the beginning of ``name.attribute[index]``."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_of_process(node: ast.AST) -> bool:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        inner = node.value
        if isinstance(node, ast.Attribute) and isinstance(inner, ast.Name) and (inner.id, node.attr) in _OF_PROCESS:
            return True
        if isinstance(node, ast.Attribute) and node.attr in _READING:
            return False
        node = inner
    return False
