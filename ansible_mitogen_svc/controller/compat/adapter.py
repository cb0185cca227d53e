# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What the task workers need to know about the running ansible-core, as one interface, and what all versions share.

Used by the strategy mixin and the workers, in the main thread and in worker threads. Adapters hold no state of a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from ansible import constants, context
from ansible._internal._display_utils import DeferredWarningContext
from ansible.executor.process.worker import WorkerProcess
from ansible.executor.task_executor import TaskExecutor
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import InventoryManager
from ansible.plugins import loader as plugin_loader
from ansible.utils.display import Display
from ansible.vars.manager import VariableManager

from ansible_mitogen_svc.controller.compat import (
    caches,
    changed_plugins,
    host_state,
    import_warnings,
    lookup_programs,
    syntax_trees,
)
from ansible_mitogen_svc.controller.workers.locks import guard_methods, loader_lock, variables_lock
from ansible_mitogen_svc.controller.workers.plugin_policy import action_made, police


@dataclasses.dataclass(frozen=True)
class QueuedTask:
    """One (host, task) pair as a strategy queues it. `task` is the strategy's own object, shared between hosts."""

    host: Any
    task: Any
    task_vars: dict[str, Any]
    play_context: Any
    variable_manager: Any

    def as_now(self) -> QueuedTask:
        """For a task that runs while hosts' variables go on changing."""
        then = host_state.as_now(self.variable_manager)
        if "hostvars" not in self.task_vars:
            return dataclasses.replace(self, variable_manager=then)
        variables = {**self.task_vars, "hostvars": then._hostvars}
        return dataclasses.replace(self, task_vars=variables, variable_manager=then)


class CoreAdapter(ABC):
    """One family of ansible-core versions."""

    #: Names of actions that only tell the strategy what to include.
    include_actions = frozenset(constants._ACTION_INCLUDE_TASKS) | frozenset(constants._ACTION_INCLUDE_ROLE)

    def prepare_core(self) -> None:
        """Give Python, core's plugin loader and its variable manager locks, and install shortcuts. Once per process."""
        caches.install()
        syntax_trees.install()
        lookup_programs.install()
        loader, jinja = plugin_loader.PluginLoader, plugin_loader.Jinja2Loader
        DeferredWarningContext.capture = import_warnings.noting(DeferredWarningContext.capture)
        loader.get_with_context = import_warnings.repeating(loader.get_with_context)
        jinja.get_with_context = import_warnings.repeating(jinja.get_with_context)
        guard_methods(
            loader,
            ("find_plugin_with_context", "get_with_context", "add_directory"),
            loader_lock,
        )
        guard_methods(jinja, ("_ensure_non_collection_wrappers", "get_with_context"), loader_lock)
        host_state.install(VariableManager)
        guard_methods(VariableManager, ("get_vars", *host_state.CHANGING), variables_lock)
        guard_methods(InventoryData, ("get_groups_dict", "get_host"), variables_lock)
        guard_methods(
            InventoryManager,
            ("add_dynamic_host", "add_dynamic_group", "refresh_inventory", "reconcile_inventory", "get_hosts"),
            variables_lock,
        )
        loader.find_plugin_with_context = police(loader.find_plugin_with_context)
        jinja.get_with_context = police(jinja.get_with_context)

    @staticmethod
    def forget_changed_plugins() -> None:
        """Have plugins that tasks have made or changed be found by those that follow. Main thread."""
        changed_plugins.forget_changed()

    #: Core's TaskExecutor.
    executor_base: type = TaskExecutor

    @staticmethod
    def in_process_executor(executor: type) -> type:
        """`executor` for tasks inside this process: tells the plugin policy when the action is made."""

        def get_handler(self: Any, *arguments: Any, **keywords: Any) -> Any:
            made = executor._get_action_handler_with_module_context(  # type: ignore[attr-defined]
                self, *arguments, **keywords
            )
            action_made(made[0])
            return made

        return type(executor.__name__, (executor,), {"_get_action_handler_with_module_context": get_handler})

    @contextlib.contextmanager
    @abstractmethod
    def task_context(self, task: Any, task_vars: dict[str, Any], host: Any, inline: bool) -> Iterator[None]:
        """The ambient context core's worker process runs a task in. `inline`: this is the main thread."""
        yield

    @abstractmethod
    def run(self, executor_class: type, queued: QueuedTask, task: Any, strategy: Any, reporter: Any) -> Any:
        """Run the worker's copy `task` of ``queued.task``, inside its context. Returns its *outcome*."""

    @abstractmethod
    def failure(self, error: BaseException) -> Any:
        """The outcome of a task whose worker failed with `error`, inside its context."""

    @abstractmethod
    def result(self, queued: QueuedTask, task: Any, outcome: Any) -> Any:
        """The object for ``strategy._results``, for an `outcome` of the worker's copy `task`."""

    @abstractmethod
    def snapshot(self, queued: QueuedTask, *arguments: Any) -> tuple[str, Any]:
        """The method and the result object of a callback, from the arguments of ``FinalQueue.send_callback``."""

    @abstractmethod
    def wire_result(self, host_name: str, task_uuid: str) -> Any:
        """An empty result as it goes through core's queue."""

    @abstractmethod
    def is_skipped_by_condition(self, task: Any, task_vars: dict[str, Any]) -> bool:
        """Whether a condition of `task` is false. :raises AnsibleError: it cannot be told."""

    @staticmethod
    def unheard() -> contextlib.AbstractContextManager[Any]:
        """Where what is looked at warns nobody, as the task itself will look at it again, and warn of it."""
        context: contextlib.AbstractContextManager[Any] = DeferredWarningContext(variables={})
        return context

    def templar(self, strategy: Any, task_vars: dict[str, Any]) -> Any:
        """A template engine over `task_vars`."""
        from ansible._internal._templating._engine import TemplateEngine

        return TemplateEngine(loader=strategy._loader, variables=task_vars)

    def route_display(self, router: Any) -> None:
        """Let `router` decide, per thread, whether display messages are queued."""
        Display()._final_q = router

    def shared_loaders(self) -> Any:
        """The namespace of plugin loaders that actions are given."""
        return plugin_loader.get_plugin_loader_namespace()

    def worker_process(self, process_class: type[WorkerProcess], strategy: Any, queued: QueuedTask, slot: int) -> Any:
        """A worker process for `queued`, not started."""
        return process_class(
            final_q=strategy._final_q,
            task_vars=queued.task_vars,
            host=queued.host,
            task=queued.task,
            play_context=queued.play_context,
            loader=strategy._loader,
            variable_manager=strategy._variable_manager,
            shared_loader_obj=self.shared_loaders(),
            worker_id=slot,
            cliargs=context.CLIARGS,
            **self.more_worker_arguments(strategy),
        )

    def more_worker_arguments(self, strategy: Any) -> dict[str, Any]:
        """Arguments of WorkerProcess that only some versions have."""
        return {}

    @abstractmethod
    def before_queueing(self, strategy: Any, host: Any) -> None:
        """Set the state of the strategy that core's own ``_queue_task`` sets."""

    @abstractmethod
    def serve_requests(self, strategy: Any) -> None:
        """Answer what workers have asked the main thread to do."""
