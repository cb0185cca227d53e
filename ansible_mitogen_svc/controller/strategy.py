# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Turns core's strategy classes into ours: same loop, other workers and connections. Used by ``plugins/strategy/*``.

`Accelerated` goes in front of a core strategy class. Core makes its objects for each play, in the main thread;
what lives longer (the Session, worker threads, locks around core's loader) is in `process_parts`, made on first use.
"""

from __future__ import annotations

import functools
import os
import threading
import traceback
from typing import Any

import ansible
from ansible import constants
from ansible.utils.display import Display

from ansible_mitogen_svc.controller import settings as settings_module
from ansible_mitogen_svc.controller.ahead import ModulesAhead
from ansible_mitogen_svc.controller.compat import lookup_programs, module_walk, variable_files
from ansible_mitogen_svc.controller.compat.probe import (
    compatibility,
    is_about_core,
    is_known,
    not_understood,
    warn_once,
)
from ansible_mitogen_svc.controller.compat.strategy_hooks import StrategyHooks
from ansible_mitogen_svc.controller.executor import executor_class
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.controller.walk_store import WalkStore
from ansible_mitogen_svc.controller.workers import output
from ansible_mitogen_svc.controller.workers.decision import Decider
from ansible_mitogen_svc.controller.workers.gate import fork_gate
from ansible_mitogen_svc.controller.workers.layer import LayerParts, WorkerLayer
from ansible_mitogen_svc.controller.workers.plugin_policy import PluginTrust, trust_roots
from ansible_mitogen_svc.controller.workers.pool import WorkerThreads
from ansible_mitogen_svc.controller.workers.run_end import RunEnd
from ansible_mitogen_svc.services import bootstrap
from ansible_mitogen_svc.statistics import counters

#: Seconds threads have to end once the connections they wait for are closed.
THREADS_LIMIT = 2.0
#: Below ANSIBLE_HOME.
DEFAULT_PACKING_CACHE = ("ansible_mitogen_svc", "packing")
#: Our package and the collection it belongs to, whose plugins we trust.
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_display = Display()


class ProcessParts:
    """What every play of this process shares."""

    def __init__(self, adapter: Any) -> None:
        from ansible_mitogen_svc.controller.compat.worker_process import worker_process_class

        adapter.prepare_core()
        executor = executor_class(adapter.executor_base)
        self._stats_path: str | None = None
        self.threads = WorkerThreads()
        self.layer_parts = LayerParts(
            adapter,
            adapter.in_process_executor(executor),
            worker_process_class(executor, session_lifecycle),
            self.threads,
            fork_gate,
        )
        self.router = output.DisplayRouter()
        self.run_end = RunEnd(self.close)

    def close(self) -> None:
        """Close the Session, wait for the threads it kept waiting, write the statistics. Once per process is enough."""
        session_lifecycle.close()
        lookup_programs.end_programs()
        self.threads.close(THREADS_LIMIT)
        path, self._stats_path = self._stats_path, None
        if path is not None:
            try:
                counters.write(path)
            except OSError as error:
                _display.warning(f"ansible_mitogen.svc: could not write the statistics to {path}: {error}")

    def use(self, settings: settings_module.Settings, forks: int) -> None:
        """Take over what the settings of a play say about the parts of the process."""
        session_lifecycle.begin()
        session_lifecycle.pool_size = settings.pool_size
        session_lifecycle.connection_limit = settings.connection_limit
        session_lifecycle.forks = forks
        self._stats_path = settings.stats_path
        store = _walk_store(settings.packing_cache, settings.packing_cache_path)
        module_walk.keep_in(store)
        bootstrap.keep_in(store)


@functools.cache
def process_parts() -> ProcessParts | str:
    """The parts of this process, or why it has none, in words for a warning."""
    compatible = compatibility()
    if compatible.adapter is None:
        return str(compatible.problem)
    try:
        return ProcessParts(compatible.adapter)
    except Exception as error:
        if is_known() and not is_about_core(error):
            raise
        # What was installed by then changes nothing for core's own workers; they are all that there is in this run.
        _display.vvv(traceback.format_exc())
        return not_understood(error)


@functools.cache
def _walk_store(wanted: bool, path: str | None) -> WalkStore | None:
    """Where records of walks stay between runs; None where that is not wanted, or not possible."""
    if not wanted:
        return None
    try:
        return WalkStore(path or os.path.join(constants.ANSIBLE_HOME, *DEFAULT_PACKING_CACHE))
    except OSError as error:
        # Only who chose the directory can do something about it.
        say = _display.warning if path else _display.vvv
        say(f"ansible_mitogen.svc: the packing cache is not used: {error}")
        return None


def plugin_trust(settings: settings_module.Settings, plugin_path: str) -> PluginTrust:
    """Whom a play with `settings` trusts, under the strategy plugin in the file `plugin_path`."""
    collection = os.path.dirname(os.path.dirname(os.path.abspath(plugin_path)))
    roots = trust_roots([os.path.dirname(ansible.__file__), PACKAGE, collection])
    return PluginTrust(roots, frozenset(settings.safe_plugins))


class Accelerated(StrategyHooks):
    """The mixin that goes in front of a core strategy."""

    def begin_play(self, play: Any) -> None:
        """Read the settings and make the worker layer. :raises AnsibleOptionsError: a setting does not parse."""
        settings = settings_module.load(self, play)
        settings_module.activate(settings)
        parts = process_parts()
        if isinstance(parts, str):
            warn_once(parts)
            return
        parts.use(settings, self.forks)
        parts.run_end.attach(self._tqm)
        parts.layer_parts.adapter.route_display(parts.router)
        variable_files.install(self._loader)
        output.install_streams()
        decider = Decider(
            parts.layer_parts.adapter,
            plugin_trust(settings, self._original_path),
            session_lifecycle.is_ours,
            force_fork=settings.task_workers == "fork",
        )
        event = threading.Event()
        self.wake_by(event)
        self._layer = WorkerLayer(self, parts.layer_parts, decider, event)

    def expect_tasks(self, blocks: list[Any]) -> None:
        """Have modules packed ahead of the tasks that run them."""
        if self._layer is not None and settings_module.current().task_workers != "fork":
            self._ahead = ModulesAhead(blocks, fork_gate, session_lifecycle.known)

    def end_play(self) -> None:
        """Give up what still runs, after an error or Ctrl-C."""
        if self._ahead is not None:
            self._ahead.end()
        if self._layer is not None:
            self._layer.end()
        output.remove_streams()

    def before_reset_connection(self, host_name: str) -> None:
        """``meta: reset_connection`` is about to run for a host."""
        session_lifecycle.reset_host(host_name)
