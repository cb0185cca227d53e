# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Chooses the kind of worker for a task on a host. Main thread only; one `Decider` per strategy object.

The rules, first match wins; the reason in statistics and messages is in brackets.

1. *fork* when the user says so [task_workers=fork], for a task timeout, which core builds on SIGALRM [timeout], for an
   active debugger [debugger], for prompts [prompt], for plugins nobody has checked for threads [action:..., become:...,
   vars:...], for connections that are not ours [connection:...], and for tasks whose earlier run on another host turned
   out to need it [lookup:..., filter:..., test:..., connection:...].
2. *inline* for includes [include], for actions that only work on the controller and never wait [controller_only], and
   for tasks whose condition is false [skipped].
3. *thread* for the rest [remote], and for what rule 2 would cover but for a wait between attempts or items [waits].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.loader import action_loader, become_loader, connection_loader, module_loader, vars_loader

from ansible_mitogen_svc.controller.compat.adapter import CoreAdapter, QueuedTask
from ansible_mitogen_svc.controller.workers.kinds import Decision, WorkerKind
from ansible_mitogen_svc.controller.workers.output import worker_output
from ansible_mitogen_svc.controller.workers.plugin_policy import (
    Abandon,
    LookAheadPolicy,
    PluginTrust,
    TaskPolicy,
    is_served,
    policy_of_this_thread,
)
from ansible_mitogen_svc.controller.workers.plugin_state import keeps_state

#: Actions of ansible.builtin that touch nothing but variables and files of the controller, and never wait.
CONTROLLER_ONLY = frozenset(
    {
        "add_host",
        "assert",
        "debug",
        "fail",
        "group_by",
        "include_vars",
        "set_fact",
        "set_stats",
        "validate_argument_spec",
    }
)
#: Actions of ansible.builtin that talk to the person at the terminal.
PROMPTING = frozenset({"pause"})
_FORK = WorkerKind.FORK


class Decider:
    """:param serves: whether our connections serve the connection of that name.
    :param force_fork: setting ``task_workers=fork``.
    """

    def __init__(
        self, adapter: CoreAdapter, trust: PluginTrust, serves: Callable[[str], bool], force_fork: bool = False
    ) -> None:
        self._adapter = adapter
        self._trust = trust
        self._serves = serves
        self._force_fork = force_fork
        self._learned: dict[str, Decision] = {}
        #: The task that was asked about last.
        self._latest = ""
        self._plugins: dict[tuple[str, str, tuple[str, ...]], Decision | None] = {}
        self._handlers: dict[tuple[str, tuple[str, ...]], tuple[str, Decision | None]] = {}
        self._vars_plugins: tuple[Decision | None] | None = None

    def policy(self, kind: WorkerKind) -> TaskPolicy:
        """What a task may load in a worker of `kind`."""
        return TaskPolicy(kind, self._trust, self._serves)

    def must_pickle(self, task: Any) -> bool:
        """Whether results of `task` come from code that might return what core could not pass between processes."""
        found = self._handlers.get((task.action, tuple(task.collections or ())))
        return found is not None and not found[0]

    def learn(self, task: Any, abandoned: Abandon) -> Decision:
        """A worker had to give `task` up: what to use instead, for this host and the following ones."""
        decision = Decision(abandoned.kind, abandoned.reason)
        self._learned[task._uuid] = decision
        return decision

    def decide(self, queued: QueuedTask, action: str | None, debugger_active: bool, templar: Any) -> Decision:
        """:param action: the task's action with templates resolved, None when that failed.
        :param templar: a template engine over the task's variables.
        """
        task = queued.task
        if task._uuid != self._latest and not self._force_fork:
            self._latest = task._uuid
            self._adapter.forget_changed_plugins()
        forced = self._forced(task, action, debugger_active)
        if forced is not None:
            return forced
        assert action is not None
        if action in self._adapter.include_actions:
            included = Decision(WorkerKind.THREAD, "waits") if _pauses(task) else Decision(WorkerKind.INLINE, "include")
            return self._learned.get(task._uuid) or included
        collections = tuple(task.collections or ())
        handler, objection = self._handler(action, collections)
        objection = objection or self._vars_objection() or self._connection_objection(queued, templar)
        if objection is not None:
            return objection
        learned = self._learned.get(task._uuid)
        if learned is not None:
            return learned
        return self._in_process(queued, handler)

    def _forced(self, task: Any, action: str | None, debugger_active: bool) -> Decision | None:
        if self._force_fork:
            return Decision(_FORK, "task_workers=fork")
        if task.timeout:
            return Decision(_FORK, "timeout")
        if debugger_active or task.debugger not in (None, "never"):
            return Decision(_FORK, "debugger")
        if action is None:
            return Decision(_FORK, "action:unresolved")
        return None

    def _in_process(self, queued: QueuedTask, handler: str) -> Decision:
        task = queued.task
        if handler in PROMPTING:
            return Decision(_FORK, "prompt")
        if handler in CONTROLLER_ONLY:
            waits = task.until or task.retries or task.async_val or _pauses(task)
            return Decision(WorkerKind.THREAD, "waits") if waits else Decision(WorkerKind.INLINE, "controller_only")
        if self._is_skipped(queued):
            return Decision(WorkerKind.INLINE, "skipped")
        return Decision(WorkerKind.THREAD, "remote")

    def _is_skipped(self, queued: QueuedTask) -> bool:
        """Whether it is cheap to tell that `queued` ends before it needs a connection.

        The task will look at its condition again: what plugins say here is said twice, and what they do is done twice.
        So it is looked at only as long as they are ones that do nothing else.
        """
        task = queued.task
        if not task.when or task.loop is not None or task.delegate_to is not None:
            return False
        policy = LookAheadPolicy(WorkerKind.INLINE, PluginTrust(self._trust.roots), self._serves)
        try:
            with worker_output(_drop), policy_of_this_thread(policy), self._adapter.unheard():
                return self._adapter.is_skipped_by_condition(task, queued.task_vars)
        except (AnsibleError, Abandon):
            return False

    def _handler(self, action: str, collections: tuple[str, ...]) -> tuple[str, Decision | None]:
        """The builtin action plugin that will run `action` ("" when it is not builtin), and what speaks against it."""
        key = (action, collections)
        found = self._handlers.get(key)
        if found is None:
            found = self._handlers[key] = self._find_handler(action, list(collections))
        return found

    def _find_handler(self, action: str, collections: list[str]) -> tuple[str, Decision | None]:
        try:
            found = _find_action(action, collections)
        except AnsibleError:
            # A removed one, for instance: the task comes to the same error, and is what fails of it.
            return "", None
        if not found.resolved:
            return "", None
        fqcn = found.resolved_fqcn or action
        if not self._trust.allows(fqcn, found.plugin_resolved_path):
            return "", Decision(_FORK, f"action:{fqcn}")
        builtin = found.plugin_resolved_collection == "ansible.builtin"
        return (fqcn.rpartition(".")[2] if builtin else ""), None

    def _connection_objection(self, queued: QueuedTask, templar: Any) -> Decision | None:
        """About what the task seems to use; what it really uses is checked when it is loaded."""
        task, task_vars = queued.task, queued.task_vars
        if task.delegate_to is None:
            name = self._plain(task_vars.get("ansible_connection"), task.connection, templar)
            if _is_name(name):
                objection = self._objection_to(connection_loader, "connection", name)
                if objection is not None:
                    return objection
                if not self._serves(name):
                    return Decision(_FORK, f"connection:{name}")
        become = self._plain(task_vars.get("ansible_become"), task.become, templar)
        if become not in (None, False, "false", "no", "False"):
            method = self._plain(task_vars.get("ansible_become_method"), task.become_method, templar)
            return self._objection_to(become_loader, "become", method) if _is_name(method) else None
        return None

    def _plain(self, variable: Any, keyword: Any, templar: Any) -> Any:
        value = keyword if variable is None else variable
        if isinstance(value, str) and "{" in value:
            try:
                with self._adapter.unheard():
                    value = templar.template(value)
            except AnsibleError:
                return None
        return value

    def _objection_to(self, loader: Any, plugin_type: str, name: str) -> Decision | None:
        key = (plugin_type, name, ())
        if key not in self._plugins:
            try:
                found = _find(loader, name)
            except AnsibleError:
                return None  # a removed one, for instance: the task fails of it
            served = plugin_type == "connection" and is_served(self._serves, found.resolved_fqcn)
            fine = not found.resolved or served
            fine = fine or self._trust.allows(found.resolved_fqcn, found.plugin_resolved_path)
            self._plugins[key] = None if fine else Decision(_FORK, f"{plugin_type}:{found.resolved_fqcn}")
        return self._plugins[key]

    def _vars_objection(self) -> Decision | None:
        """Reading another host's variables runs vars plugins, in whatever thread that happens."""
        if self._vars_plugins is None:
            # Those of collections, which core runs for every task, are judged by what they keep, as filters are.
            suspects = (
                fqcn
                for fqcn, path in _vars_plugins()
                if not self._trust.allows(fqcn, path) and (fqcn.startswith("ansible.legacy.") or keeps_state(path))
            )
            fqcn = next(suspects, None)
            self._vars_plugins = (Decision(_FORK, f"vars:{fqcn}") if fqcn else None,)
        return self._vars_plugins[0]


def _is_name(value: Any) -> bool:
    """Whether it can be a plugin's name. A list, say, fails in the task, with core's words."""
    return isinstance(value, str) and value != ""


def _find_action(action: str, collections: list[str]) -> Any:
    """Where core finds the action plugin of a task."""
    module = _find(module_loader, action, collections)
    name = module.action_plugin if module.resolved and module.action_plugin else action
    found = _find(action_loader, name, collections)
    if not found.resolved:
        collection, _dot, short = action.rpartition(".")
        group = short.split("_")[0]
        if group in constants.NETWORK_GROUP_MODULES:
            name = f"{collection}.{group}" if collection else group
            found = _find(action_loader, name, collections)
    return found if found.resolved else _find(action_loader, "ansible.legacy.normal")


def _find(loader: Any, name: str, collections: list[str] | None = None) -> Any:
    """Where core finds a plugin. That it is deprecated is told by the task, which knows its place in the playbook.

    :raises AnsibleError: it was removed, or cannot be looked for.
    """
    return loader.find_plugin_with_context(name, ignore_deprecated=True, collection_list=collections)


def _drop(_entry: Callable[[], None]) -> None:
    """What is done with messages of a look ahead."""


def _vars_plugins() -> Iterator[tuple[str, str]]:
    """Names and paths of the vars plugins that core uses: those beside a playbook, and those of collections by name."""
    # Paths only: how often core loads a vars plugin can be seen in its debug output.
    for path in vars_loader.all(path_only=True):
        yield f"ansible.legacy.{os.path.splitext(os.path.basename(path))[0]}", path
    for name in filter(None, constants.VARIABLE_PLUGINS_ENABLED):
        found = _find(vars_loader, name)
        if found.resolved and "." in found.resolved_fqcn:
            yield found.resolved_fqcn, found.plugin_resolved_path


def _pauses(task: Any) -> bool:
    """Whether a task waits between the items of its loop."""
    return task.loop is not None and bool(task.loop_control.pause)
