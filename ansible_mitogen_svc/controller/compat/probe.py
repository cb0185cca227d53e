# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Chooses the adapter for the ansible-core that is running. Called once, by the strategy mixin, in the main thread.

Much of ours uses private names of core's while it is imported, so this file uses none: it can say what another core
lacks where nothing else can be imported (`loading.py`).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible.release import __version__ as core_version
from ansible.utils.display import Display

if TYPE_CHECKING:
    from ansible_mitogen_svc.controller.compat.adapter import CoreAdapter

RAW = (2, 19), (2, 20)
UNIFIED = (2, 21), (2, 22)
#: Whose names may change from one version to the next.
_CHANGING = ("ansible", "jinja2")

#: (module, dotted name, parameters that must exist)
Names = tuple[tuple[str, str, frozenset[str]], ...]

#: What the adapter for the newest versions relies on.
_NAMES_USED: Names = (
    ("ansible._internal._task", "TaskContext.create", frozenset({"task", "task_vars", "host_name"})),
    ("ansible._internal._task", "TaskContext.inventory_rpc_client", frozenset()),
    ("ansible._internal._task", "UnifiedTaskResult.create_from_action_exception", frozenset({"exception"})),
    ("ansible._internal._task", "UnifiedTaskResult.finalize_registered_values", frozenset()),
    ("ansible._internal._task", "WireTaskResult", frozenset({"host_name", "task_uuid", "task_fields", "utr"})),
    ("ansible._internal._task", "HostTaskResult", frozenset({"host", "task", "utr"})),
    ("ansible._internal._templating._engine", "TemplateEngine", frozenset({"loader", "variables"})),
    ("ansible._internal._templating._access", "AnsibleAccessContext._contextvar.set", frozenset()),
    ("ansible._internal._worker._inventory_rpc", "InventoryRPC.add_host.__wrapped__", frozenset()),
    ("ansible._internal._worker._inventory_rpc", "InventoryRPC.add_group.__wrapped__", frozenset()),
    (
        "ansible.executor.task_executor",
        "TaskExecutor.__init__",
        frozenset({"host", "play_context", "loader", "shared_loader_obj", "final_q", "variable_manager"}),
    ),
    ("ansible.executor.task_executor", "TaskExecutor.run", frozenset()),
    (
        "ansible.executor.process.worker",
        "WorkerProcess.__init__",
        frozenset({"final_q", "task_vars", "host", "task", "play_context", "loader", "worker_id", "cliargs"}),
    ),
    ("ansible.executor.process.worker", "TaskExecutor", frozenset()),
    (
        "ansible.plugins.strategy",
        "StrategyBase._convert_wire_task_result_to_host_task_result",
        frozenset({"wire_task_result"}),
    ),
    (
        "ansible.plugins.strategy",
        "StrategyBase._queue_task",
        frozenset({"host", "task", "task_vars", "play_context"}),
    ),
    ("ansible.plugins.strategy", "StrategyBase._process_rpc_queue", frozenset()),
    ("ansible.plugins.strategy", "StrategyBase._wait_on_pending_results", frozenset({"iterator"})),
    (
        "ansible.plugins.loader",
        "PluginLoader.find_plugin_with_context",
        frozenset({"name", "ignore_deprecated", "collection_list"}),
    ),
    ("ansible.plugins.loader", "PluginLoader.get_with_context", frozenset({"name"})),
    ("ansible.plugins.loader", "PluginLoader.add_directory", frozenset()),
    ("ansible._internal._display_utils", "DeferredWarningContext.capture", frozenset({"warning"})),
    ("ansible.plugins.loader", "Jinja2Loader._ensure_non_collection_wrappers", frozenset()),
    ("ansible.plugins.loader", "Jinja2Loader.get_with_context", frozenset({"name"})),
    ("ansible.vars.manager", "VariableManager.get_vars", frozenset()),
    ("ansible.vars.manager", "VariableManager.set_host_facts", frozenset({"host", "facts"})),
    ("ansible.vars.manager", "VariableManager.set_nonpersistent_facts", frozenset({"host", "facts"})),
    ("ansible.vars.manager", "VariableManager.set_host_variable", frozenset({"host", "varname", "value"})),
    ("ansible.vars.manager", "VariableManager.clear_facts", frozenset({"hostname"})),
    ("ansible.inventory.data", "InventoryData.get_groups_dict", frozenset()),
    ("ansible.playbook.task", "Task._resolve_conditional", frozenset({"conditional", "variables"})),
)


@dataclass(frozen=True)
class Compatibility:
    """`adapter` is None when this core is not understood, and then `problem` says why, in words for a warning."""

    adapter: CoreAdapter | None
    problem: str | None = None


def parse_version(text: str) -> tuple[int, int]:
    """(major, minor) of an ansible-core version. :raises ValueError: it has another form."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def missing_names(names: Names | None = None) -> list[str]:
    """Those of `names` (and their parameters) that this core lacks; by default of what the newest adapter uses."""
    missing = []
    for module_name, dotted, parameters in _NAMES_USED if names is None else names:
        try:
            found: Any = importlib.import_module(module_name)
            for part in dotted.split("."):
                found = getattr(found, part)
            lacking = parameters - set(inspect.signature(found).parameters) if parameters else frozenset()
        except (ImportError, AttributeError, TypeError, ValueError):
            missing.append(f"{module_name}.{dotted}")
        else:
            missing.extend(f"{module_name}.{dotted}({name})" for name in sorted(lacking))
    return missing


def is_known() -> bool:
    """Whether this is a core that we were tested with."""
    return parse_version(core_version) in RAW + UNIFIED


def is_about_core(error: Exception) -> bool:
    """Whether `error` says that a module, or a name in one, of core's or of Jinja's is missing."""
    about = getattr(error, "obj", None)
    if isinstance(error, ImportError):
        module = error.name
    else:
        module = getattr(about, "__name__" if isinstance(about, types.ModuleType) else "__module__", None)
    return isinstance(error, (ImportError, AttributeError)) and str(module).partition(".")[0] in _CHANGING


def not_understood(detail: Exception | str) -> str:
    """The warning that this core is not understood, as `detail` shows."""
    said = f"{type(detail).__name__}: {detail}" if isinstance(detail, Exception) else detail
    return (
        f"ansible_mitogen.svc does not know ansible-core {core_version} ({said}): tasks run in core's own worker "
        "processes over core's own connections for this run. Update the collection ansible_mitogen.svc."
    )


@functools.cache
def warn_once(problem: str) -> None:
    """Say once per process that core's own way is taken."""
    Display().warning(problem)


@functools.cache
def compatibility() -> Compatibility:
    """The adapter for this process's ansible-core."""
    missing = [] if is_known() else missing_names()
    version = parse_version(core_version)
    if version < RAW[0] or missing:
        detail = f"it lacks {', '.join(missing[:3])}" if missing else "it is older than 2.19"
        return Compatibility(None, not_understood(detail))
    try:
        return Compatibility(_adapter(raw=version in RAW))
    except (ImportError, AttributeError) as error:
        if not is_about_core(error):
            raise
        return Compatibility(None, not_understood(error))


def _adapter(raw: bool) -> CoreAdapter:
    if raw:
        from ansible_mitogen_svc.controller.compat.raw_results import RawResultsAdapter

        return RawResultsAdapter()
    from ansible_mitogen_svc.controller.compat.unified_results import UnifiedResultsAdapter

    return UnifiedResultsAdapter()
