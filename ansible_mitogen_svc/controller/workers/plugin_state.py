# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Tells filters and tests that only compute from those whose process would remember something of it.

Asked by plugin_policy.py in any thread. Under core each task has a process of its own, so what a filter keeps in its
module (a cache of files, a counter), or does to its process (the environment, the working directory), is gone with
the task. Most filters keep nothing, and need no process. Their source is looked at, not at what it imports; where it
is not clear, a process too many is made.

Theory of operation

1. What lasts longer than a call has a name outside of the functions that filters run: names of the module, attributes
   of classes, of objects made when the module is executed, and what surrounds a function that was made then.
2. A file keeps something if a function of it changes what lasts, or the process, or if it has a way to remember that
   needs no change: a global variable, a cache, a default that can change.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Iterable, Iterator

_REMEMBERING = frozenset({"cache", "cached_property", "lru_cache"})
_CHANGING = frozenset(
    "__next__ add append appendleft clear difference_update discard extend insert intersection_update move_to_end pop "
    "popitem popleft read readline readlines remove reverse rotate seek send setdefault sort subtract "
    "symmetric_difference_update update write".split()
)
#: What concerns the whole process: (module, what is called or changed in it).
_OF_PROCESS = frozenset(
    {
        *(("os", name) for name in ("chdir", "environ", "fchdir", "nice", "putenv", "umask", "unsetenv")),
        *(("random", "seed"), ("locale", "setlocale"), ("time", "tzset"), ("socket", "setdefaulttimeout")),
        *(("sys", name) for name in ("modules", "path", "setrecursionlimit")),
        *(("signal", name) for name in ("alarm", "setitimer", "signal")),
        *(("decimal", "setcontext"), ("logging", "disable"), ("resource", "setrlimit")),
    }
)
#: Classes of which core makes one object for all calls, and what it calls once.
_KEPT_OBJECTS = frozenset({"FilterModule", "TestModule"})
_CALLED_ONCE = frozenset({"__init__", "filters", "tests"})
#: Functions that change their first argument.
_CHANGING_FIRST = frozenset({"delattr", "next", "setattr"})
#: Calls of functions that give what lasts -> what they give.
_SAME = {"globals": "globals", "type": "cls", "vars": "globals"}
_READING = frozenset({"copy", "get", "items", "keys", "values"})
#: What stands for the class of an object, and for the module, wherever it is written.
_ALWAYS_LASTING = frozenset({"cls", "self.__class__", "globals"})
_FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda
_CHANGEABLE = ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp, ast.Call

Names = frozenset[str]


@functools.cache
def keeps_state(path: str) -> bool:
    """Whether the plugins in a file may remember something between calls, or change their process.

    What cannot be read, or parsed, may do anything.
    """
    try:
        with open(path, "rb") as file:
            return _may_keep(ast.parse(file.read()))
    except (OSError, RecursionError, SyntaxError, ValueError):
        return True


def _may_keep(tree: ast.AST) -> bool:
    if any(map(_remembers, ast.walk(tree))):
        return True
    for function, outside in _functions(tree, _lasting(tree), _called_once(tree)):
        lasting = outside - (_stored(ast.walk(function)) - {"self", "cls"})
        lasting |= _aliases(function, lasting)
        if any(_changes(node, lasting) for node in ast.walk(function)):
            return True
    return False


def _functions(tree: ast.AST, lasting: Names, once: Names) -> Iterator[tuple[ast.AST, Names]]:
    """Functions that filters may run, with the names that stand for something there which outlives a call."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _FUNCTIONS):
            name = getattr(node, "name", "")
            yield node, lasting - {"self"} if name in _CALLED_ONCE else lasting
            if name in once:
                yield from _functions(node, lasting | _stored(_at_import(node)), once)
        elif isinstance(node, ast.ClassDef) and node.name in once:
            yield from _functions(node, lasting | {"self"}, once)
        else:
            yield from _functions(node, lasting, once)


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """What is executed when a module, or a class, is: no function but for its decorators and defaults; no class."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            for part in (*getattr(node, "decorator_list", ()), *_defaults(node)):
                yield from ast.walk(part)
        else:
            yield from _at_import(node)


def _lasting(tree: ast.AST) -> Names:
    """Names of what a module makes once: values, functions and classes, and what classes have for all their objects."""
    executed = list(_at_import(tree))
    defined = (node.name for node in executed if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    in_classes = (part for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for part in node.body)
    made = (node for node in in_classes if isinstance(getattr(node, "value", None), _CHANGEABLE))
    of_objects = (f"self.{name}" for node in made for name in _stored(ast.walk(node)))
    return _ALWAYS_LASTING | _stored(executed) | frozenset(defined) | frozenset(of_objects)


def _called_once(tree: ast.AST) -> Names:
    """Names of functions and classes that are called when a module is executed, or the plugins in it are asked for."""
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    executed = [node for scope in scopes for node in _at_import(scope)]
    for node in [*executed]:
        if isinstance(node, ast.FunctionDef) and node.name in _CALLED_ONCE:
            executed += ast.walk(node)
    called: list[ast.AST] = [node.func for node in executed if isinstance(node, ast.Call)]
    called += [each for node in executed for each in getattr(node, "decorator_list", ())]
    return _KEPT_OBJECTS | _CALLED_ONCE | {node.id for node in called if isinstance(node, ast.Name)}


def _stored(nodes: Iterable[ast.AST]) -> Names:
    """Names that are given a value, parameters among them."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return frozenset(names)


def _aliases(function: ast.AST, lasting: Names) -> Names:
    """Names of variables of a function that stand for what lasts."""
    values = (node for node in ast.walk(function) if isinstance(node, ast.Assign))
    return _stored(target for node in values if _is_among(node.value, lasting) for target in node.targets)


def _remembers(node: ast.AST) -> bool:
    """Whether this is a way to remember without changing anything that is seen to last."""
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        decorators = getattr(node, "decorator_list", ())
        return any(map(_is_cache, decorators)) or any(isinstance(each, _CHANGEABLE) for each in _defaults(node))
    if isinstance(node, ast.ImportFrom):
        return any((node.module, each.name) in _OF_PROCESS for each in node.names)
    return isinstance(node, (ast.Global, ast.Nonlocal)) or (isinstance(node, ast.Call) and _is_cache(node.func))


def _defaults(node: ast.AST) -> list[ast.expr]:
    arguments = getattr(node, "args", None)
    return [*arguments.defaults, *filter(None, arguments.kw_defaults)] if arguments is not None else []


def _is_cache(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return "cache" in name or name in _REMEMBERING or "memoi" in name


def _changes(node: ast.AST, lasting: Names) -> bool:
    """Whether this changes something that outlives the call."""
    if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        return _is_among(node.value, lasting) or _is_of_process(node)
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id in _CHANGING_FIRST and any(_is_among(each, lasting) for each in node.args[:1])
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in _CHANGING and _is_among(node.func.value, lasting) or _is_of_process(node.func)
    return False


def _is_among(node: ast.AST, lasting: Names) -> bool:
    """Whether something is one of those, or an attribute or an item of it."""
    attributes: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            node = node.func
            if isinstance(node, ast.Name) and node.id not in _SAME:
                return False
            if isinstance(node, ast.Attribute) and node.attr != "get":
                return False
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            if isinstance(node, ast.Attribute):
                attributes.insert(0, node.attr)
            node = node.value
        else:
            return False
    return not lasting.isdisjoint(itertools.accumulate([_SAME.get(node.id, node.id), *attributes], "{}.{}".format))


def _is_of_process(node: ast.AST) -> bool:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        inner = node.value
        if isinstance(node, ast.Attribute) and isinstance(inner, ast.Name) and (inner.id, node.attr) in _OF_PROCESS:
            return True
        if isinstance(node, ast.Attribute) and node.attr in _READING:
            return False
        node = inner
    return False
