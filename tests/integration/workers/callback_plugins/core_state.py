# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Notes which state of the process tasks change that run in it: under core it would end with their worker process.

For test_core_state.py; tasks have to run one after the other. What it looks at: variables of core's and of plugins'
modules, attributes of their classes, what these have a level or two below, and what Python and the kernel keep for a
process.
"""

from __future__ import annotations

import collections
import functools
import json
import locale
import logging
import os
import re
import signal
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_mitogen_svc.controller.workers import task_worker

DOCUMENTATION = """
name: core_state
type: aggregate
short_description: notes which state of the process tasks change
description: In the file named by the environment variable CORE_STATE, as JSON.
"""

#: Packages whose modules are looked into.
PACKAGES = ("ansible", "ansible_collections")
_PLAIN = (str, int, float, bool, bytes, type(None))
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
_MAPPINGS = (dict, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type)

State = dict[str, Any]


def digest(value: Any, depth: int = 3) -> Any:
    """Something that is equal as long as the value, and what it has, are the same."""
    if isinstance(value, _PLAIN):
        return value
    if depth and isinstance(value, _MAPPINGS):
        return sorted((repr(key)[:200], repr(digest(each, depth - 1))) for key, each in list(value.items()))
    if depth and isinstance(value, _SEQUENCES):
        return [type(value).__name__, sorted(repr(digest(each, depth - 1)) for each in list(value))]
    if isinstance(value, functools._lru_cache_wrapper):
        return value.cache_info().currsize
    attributes = attributes_of(value)
    return [id(value), digest(attributes, depth - 1)] if depth > 1 and attributes else id(value)


def attributes_of(value: Any) -> dict[str, Any]:
    """Those of an object of core's or of a plugin's."""
    if isinstance(value, type) or type(value).__module__.partition(".")[0] not in PACKAGES:
        return {}
    try:
        return dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        return {}


def variables() -> Iterator[tuple[str, Any]]:
    """Names and values of what modules and their classes keep; the same object once."""
    seen: set[int] = set()
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] not in PACKAGES or "ansible_mitogen" in name:
            continue
        place = re.sub(r"_\d{9,}$", "", name)  # the loader's, for plugins
        for variable, value in list(vars(module).items()):
            for full, each in members(f"{place}.{variable}", value, name):
                if isinstance(each, _PLAIN):
                    yield full, each
                elif id(each) not in seen:
                    seen.add(id(each))
                    yield from parts(full, each)


def members(name: str, value: Any, module: str) -> Iterator[tuple[str, Any]]:
    """What a variable of a module has: of a class what it keeps itself, of a function what is kept beside its code."""
    if name.rpartition(".")[2].startswith("__") or isinstance(value, types.ModuleType):
        return
    if isinstance(value, type):
        own = vars(value).items() if value.__module__ == module else ()
        for attribute, each in list(own):
            if not attribute.startswith("__") and not isinstance(each, (classmethod, staticmethod, property, type)):
                yield from members(f"{name}.{attribute}", each, module)
    elif isinstance(value, types.FunctionType):
        if value.__module__ == module:
            yield f"{name} defaults", value.__defaults__
            yield f"{name} attributes", value.__dict__
    elif not isinstance(value, _CODE):
        yield name, value


def parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """An object of core's by its attributes, under its class's name; anything else as it is."""
    attributes = attributes_of(value)
    if not attributes:
        yield name, value
    kind = type(value)
    for attribute, each in attributes.items():
        yield f"{kind.__module__}.{kind.__qualname__} object.{attribute}", each


def of_the_process() -> State:
    """What Python and the kernel keep."""
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": mask,
        "locale": locale.setlocale(locale.LC_ALL, None),
        "signals": [repr(signal.getsignal(number)) for number in range(1, 32)],
        "sys.path": list(sys.path),
        "sys.meta_path": [id(each) for each in sys.meta_path],
        "recursion limit": sys.getrecursionlimit(),
        "warnings": repr(warnings.filters),
        "logging": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable],
        "exception hooks": [id(sys.excepthook), id(threading.excepthook)],
    }


def state() -> State:
    """All of it, by name."""
    found = of_the_process()
    for name, value in variables():
        # Objects of one class share their attributes' names.
        found.setdefault(name, []).append(repr(digest(value)))
    return found


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "core_state"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.changed: dict[str, set[str]] = collections.defaultdict(set)
        self.tasks = 0
        run = task_worker.TaskWorker._result

        def watched(worker: task_worker.TaskWorker, captured: Any) -> Any:
            before = state()
            try:
                return run(worker, captured)
            finally:
                self.tasks += 1
                self.note(before, state(), str(worker.queued.task))

        task_worker.TaskWorker._result = watched

    def note(self, before: Mapping[str, Any], after: Mapping[str, Any], task: str) -> None:
        """What a task has changed; not what came with a module that it was the first to import."""
        for name, value in before.items():
            if after.get(name) != value:
                self.changed[name].add(task)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        changed = {name: sorted(tasks)[:3] for name, tasks in sorted(self.changed.items())}
        with open(os.environ["CORE_STATE"], "w") as file:
            json.dump({"tasks": self.tasks, "changed": changed}, file)
