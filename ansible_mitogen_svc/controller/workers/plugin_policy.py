# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which plugins may be loaded where: threads take what is known to be safe in them, the main thread none that blocks.

Theory of operation

1. `PluginTrust` knows where ansible-core's and our own plugins live, and the user's ``safe_plugins``. It answers for
   one resolved plugin: may it run beside others in one process?
2. Before a task starts the `Decider` asks about what it can see: action, connection, become method.
3. What hides in templates (lookups, and connections or become methods that a loop's items name) shows only when it is
   looked up. The loader's finder therefore asks the `TaskPolicy` of the current thread, in any thread, each time.
   Filters and tests are asked about likewise, once they are found; only those need a process that may keep something
   (plugin_state.py).
4. A policy that objects raises `Abandon` as long as the task has done nothing: its worker hands it to another kind.
   Once the TaskExecutor has made an action object the task can no longer be taken back (`action_made`); what is found
   later, by the action or by later items of a loop, is used where it is. An action of which nothing is seen before it
   returns is taken back until then (`RESTARTABLE`).
5. `Abandon` is a BaseException, as nothing between the finder and the worker may turn it into a failed task.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_mitogen_svc.controller.workers.kinds import WorkerKind
from ansible_mitogen_svc.controller.workers.plugin_state import keeps_state

#: Lookups of ansible.builtin that want a process of their own. What `lines` and `pipe` start inherits standard error,
#: and only a worker process has one to give away (for those found too late see compat/lookup_programs.py). `url`
#: installs its credentials and its trust for the whole process.
PROCESS_LOOKUPS = frozenset({"lines", "pipe", "url"})
#: Lookups of ansible.builtin that may wait: for the lock of a file.
WAITING_LOOKUPS = frozenset({"password"})
#: Actions of ansible.builtin that do nothing but compute their result.
RESTARTABLE = frozenset(
    f"ansible.builtin.{name}" for name in ("assert", "debug", "fail", "set_fact", "validate_argument_spec")
)

_MARK = "_ansible_mitogen_svc_policed"
_local = threading.local()


class Abandon(BaseException):
    """The running task needs a worker of another kind, and has not done anything yet."""

    def __init__(self, kind: WorkerKind, reason: str) -> None:
        super().__init__(f"{kind.value}: {reason}")
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True)
class PluginTrust:
    """Tells plugins known to work beside others in one process from the rest.

    :param roots: directories whose plugins are trusted (ansible-core's package, our collection).
    :param safe: fully qualified plugin names, and collection names as ``ns.collection``.
    """

    roots: tuple[str, ...]
    safe: frozenset[str] = field(default_factory=frozenset)

    def allows(self, fqcn: str | None, path: str | None) -> bool:
        """Whether the plugin named `fqcn`, loaded from the file `path`, is trusted."""
        if path is not None and path.startswith(self.roots):
            return True
        name = fqcn or ""
        if "." not in name:
            # Plugins beside a playbook or in a role; core calls their namespace so.
            name = f"ansible.legacy.{name}"
        return name in self.safe or ".".join(name.split(".")[:2]) in self.safe


def trust_roots(directories: Iterable[str]) -> tuple[str, ...]:
    """`directories` as they are compared with: real, absolute, with a separator at the end."""
    named = [os.path.join(os.path.abspath(directory), "") for directory in directories]
    real = [os.path.join(os.path.realpath(directory), "") for directory in directories]
    return tuple(dict.fromkeys(named + real))


def is_served(serves: Callable[[str], bool], fqcn: str | None) -> bool:
    """Whether the connection plugin of a collection is one that ours stand in for: its own code then runs only to tell
    what it would start, which was checked for threads. Not so a plugin beside a playbook that goes by the same name.
    """
    name = fqcn or ""
    return name.count(".") >= 2 and not name.startswith("ansible.legacy.") and serves(name)


@dataclass
class TaskPolicy:
    """What one task, in one worker, may load. Lives as long as the task runs; used by its thread only.

    :param kind: of the worker that runs the task: inline or thread.
    :param serves: whether connections of that name go through ours.
    :param learned: what the task finds out, and is forgotten with it; see compat/variable_files.py.
    :param settle: called when the task can no longer be moved.
    """

    kind: WorkerKind
    trust: PluginTrust
    serves: Callable[[str], bool]
    started: bool = False
    learned: dict[Any, Any] = field(default_factory=dict)
    settle: Callable[[], None] = lambda: None

    def stay(self) -> None:
        """From here on the task stays where it is."""
        if not self.started:
            self.started = True
            self.settle()

    def check(self, plugin_type: str, name: str, fqcn: str | None, path: str | None) -> None:
        """Called for each plugin found. :raises Abandon: it must not be used here, and the task can still be moved."""
        if self.started:
            return
        objection = self._objection(plugin_type, name, fqcn, path)
        if objection is not None:
            raise Abandon(*objection)

    def _objection(
        self, plugin_type: str, name: str, fqcn: str | None, path: str | None
    ) -> tuple[WorkerKind, str] | None:
        if plugin_type not in _CHECKED or path is None:
            return None
        if plugin_type == "connection" and is_served(self.serves, fqcn):
            return None
        if not self.trust.allows(fqcn, path):
            if plugin_type in _COMPUTING and not keeps_state(path):
                return None
            return WorkerKind.FORK, f"{plugin_type}:{fqcn or name}"
        short = (fqcn or name).rpartition(".")[2]
        if plugin_type == "connection" and not self.serves(name):
            return WorkerKind.FORK, f"connection:{short}"
        if plugin_type == "lookup" and short in PROCESS_LOOKUPS:
            return WorkerKind.FORK, f"lookup:{short}"
        if plugin_type == "lookup" and short in WAITING_LOOKUPS and self.kind is WorkerKind.INLINE:
            return WorkerKind.THREAD, f"lookup:{short}"
        return None


class LookAheadPolicy(TaskPolicy):
    """What a look at a task's condition before it runs may use: no plugins but trusted ones, of whatever type."""

    def _objection(
        self, plugin_type: str, name: str, fqcn: str | None, path: str | None
    ) -> tuple[WorkerKind, str] | None:
        if plugin_type in _CHECKED and path is not None and not self.trust.allows(fqcn, path):
            return self.kind, f"{plugin_type}:{fqcn or name}"
        return super()._objection(plugin_type, name, fqcn, path)


#: Those that only compute, unless they say otherwise.
_COMPUTING = frozenset({"filter", "test"})
_CHECKED = frozenset({"action", "connection", "become", "lookup"}) | _COMPUTING


@contextlib.contextmanager
def policy_of_this_thread(policy: TaskPolicy) -> Iterator[None]:
    """Let `policy` decide about every plugin the current thread looks for inside this block."""
    before = getattr(_local, "policy", None)
    _local.policy = policy
    try:
        yield
    finally:
        _local.policy = before


def carried_over() -> Callable[[], None]:
    """A function that gives another thread, for good, the policy that the current thread has now."""
    policy = getattr(_local, "policy", None)

    def carry_over() -> None:
        _local.policy = policy

    return carry_over


def learned_by_task() -> dict[Any, Any] | None:
    """What the current thread's task has found out; None where no task runs, as in a worker process."""
    policy = getattr(_local, "policy", None)
    return None if policy is None else policy.learned


def action_made(action: Any = None) -> None:
    """The current thread's task is about to do something with `action`: from here on it stays where it is."""
    if getattr(action, "ansible_name", None) in RESTARTABLE:
        _settle_after(action)
        return
    policy = getattr(_local, "policy", None)
    if policy is not None:
        policy.stay()


def _settle_after(action: Any) -> None:
    """Have the task stay where it is when `action` has run, with whatever outcome."""

    def run(*arguments: Any, **keywords: Any) -> Any:
        # It has its class's again. Else each would refer to the other, and keep the task's variables.
        del action.run
        try:
            result = action.run(*arguments, **keywords)
        except Abandon:
            raise
        except BaseException:
            action_made()
            raise
        action_made()
        return result

    action.run = run


def police(finder: Callable[..., Any]) -> Callable[..., Any]:
    """A ``find_plugin_with_context`` of PluginLoader, or the ``get_with_context`` of its subclass for filters and
    tests, that asks the current thread's policy about what it has found.

    Of filters and tests only the latter tells which one is meant: core looks into all files of a collection for one.
    """
    if getattr(finder, _MARK, False):
        return finder

    @functools.wraps(finder)
    def find_and_ask(loader: Any, name: str, *arguments: Any, **keywords: Any) -> Any:
        found = finder(loader, name, *arguments, **keywords)
        policy = getattr(_local, "policy", None)
        if policy is not None:
            context = getattr(found, "plugin_load_context", found)
            if context.resolved and (context is not found or loader.type not in _COMPUTING):
                policy.check(loader.type, name, context.resolved_fqcn, context.plugin_resolved_path)
        return found

    setattr(find_and_ask, _MARK, True)
    return find_and_ask
