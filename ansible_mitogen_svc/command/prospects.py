# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a run would do with the hosts of an inventory and the tasks of a playbook, without a run.

Called by the `doctor` command in its only thread. Nothing is decided here: the connection is looked up among the
transports, and each task is shown to the `Decider` that the strategy would ask, with the variables that are known
before the first task. So a value that comes from a fact or a register is not known, and what hides in templates (a
lookup plugin) shows only during a run.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from ansible import constants
from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.playbook.play import Play
from ansible.plugins.loader import add_all_plugin_dirs, connection_loader, init_plugin_loader, strategy_loader
from ansible.utils.collection_loader import AnsibleCollectionConfig
from ansible.utils.vars import load_extra_vars
from ansible.vars.manager import VariableManager

from ansible_mitogen_svc.command.doctor import Finding
from ansible_mitogen_svc.command.outcome import CommandError
from ansible_mitogen_svc.comparison.recording import OUR_STRATEGY
from ansible_mitogen_svc.controller import settings, transport
from ansible_mitogen_svc.controller.compat.adapter import QueuedTask
from ansible_mitogen_svc.controller.compat.probe import compatibility
from ansible_mitogen_svc.controller.reach import wants_files
from ansible_mitogen_svc.controller.strategy import plugin_trust
from ansible_mitogen_svc.controller.workers.decision import Decider
from ansible_mitogen_svc.controller.workers.kinds import Decision, WorkerKind

HOSTS_NAMED = 5
_EXPLAINED = {
    WorkerKind.INLINE: "in the main thread",
    WorkerKind.THREAD: "in a thread",
    WorkerKind.FORK: "in a process of its own",
}


def strategy_class(name: str = OUR_STRATEGY) -> Any:
    """A strategy of ours, as core's loader finds it; None when it is not there, or the collection is not installed."""
    return strategy_loader.get(name, class_only=True)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """:raises CommandError: core could not read it."""
    try:
        yield
    except AnsibleError as error:
        raise CommandError(f"{what} cannot be read: {error}") from None


class Prospects:
    """:param inventories: sources as for ``-i``; the configuration's when empty.
    :param limit: a host pattern, or None.
    :raises CommandError: they cannot be read.
    """

    def __init__(self, inventories: Iterable[str], limit: str | None, extra_vars: Iterable[str]) -> None:
        _prepare_core(list(extra_vars))
        self._loader = DataLoader()
        with _reading("a vault's password"):
            # Those that the configuration names; nobody is asked for one here.
            CLI.setup_vault_secrets(self._loader, list(constants.DEFAULT_VAULT_IDENTITY_LIST), auto_prompt=False)
        with _reading("a value of -e"):
            # Core keeps them; an inventory plugin that met the error would report it as its own.
            extra = load_extra_vars(self._loader)
        named = list(inventories)
        sources = named or list(constants.DEFAULT_HOST_LIST)
        with _reading("the inventory"):
            self._inventory = InventoryManager(loader=self._loader, sources=sources)
            if limit:
                self._inventory.subset(limit)
            self._variables = VariableManager(loader=self._loader, inventory=self._inventory)
            self._variables._extra_vars = extra
            self.hosts = list(self._inventory.get_hosts("all"))
        if not self.hosts and (named or limit):
            matching = f" and matches {limit}" if limit else ""
            raise CommandError(f"no host is in {', '.join(map(str, sources))}{matching}")
        self._adapter: Any = compatibility().adapter

    def examine_hosts(self) -> Iterator[Finding]:
        """One finding per way of reaching hosts.

        :raises CommandError: the variables of one cannot be read.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for host in self.hosts:
            with _reading(f"the variables of {host.name}"):
                groups.setdefault(self._reach(host), []).append(host.name)
        for (level, text), names in groups.items():
            more = f" and {len(names) - HOSTS_NAMED} more" if len(names) > HOSTS_NAMED else ""
            yield Finding(level, f"{', '.join(names[:HOSTS_NAMED])}{more}: {text}")

    def _reach(self, host: Any) -> tuple[str, str]:
        variables = self._variables.get_vars(host=host)
        name = self._plain(variables, "ansible_connection") or str(constants.DEFAULT_TRANSPORT)
        if not transport.is_handled(name):
            return "note", f"connection {name} is left to ansible-core, over its own plugin"
        connection_loader.get(name, class_only=True)  # makes its options known
        try:
            enabled, origin = constants.config.get_config_value_and_origin(
                "pipelining", plugin_type="connection", plugin_name=name.rpartition(".")[2], variables=variables
            )
        except AnsibleError:
            enabled, origin = True, ""
        if wants_files(enabled, origin):
            return "note", f"connection {name} stays open; modules go as files, for a variable turns pipelining off"
        return "ok", f"connection {name} stays open for the whole run"

    def _plain(self, variables: dict[str, Any], name: str) -> str:
        value = variables.get(name)
        if isinstance(value, str) and "{" in value:
            try:
                value = self._adapter.templar(SimpleNamespace(_loader=self._loader), variables).template(value)
            except AnsibleError:
                return str(variables[name])
        return "" if value is None else str(value)

    def examine_tasks(self, path: str) -> Iterator[Finding]:
        """One finding per task and decision, in the order of the playbook.

        :raises CommandError: the playbook cannot be read.
        """
        if self._adapter is None:
            raise CommandError(str(compatibility().problem))
        directory = os.path.dirname(os.path.abspath(path))
        add_all_plugin_dirs(directory)
        AnsibleCollectionConfig.playbook_paths = [directory]
        with _reading("the playbook"):
            plays = Playbook.load(path, variable_manager=self._variables, loader=self._loader).get_plays()
            for play in plays:
                yield from self._examine_play(play)

    def _examine_play(self, play: Play) -> Iterator[Finding]:
        templar = self._adapter.templar(SimpleNamespace(_loader=self._loader), self._variables.get_vars(play=play))
        hosts = self._inventory.get_hosts(templar.template(play.hosts))
        text, strategy = f"play {play.get_name()!r} (hosts: {len(hosts)})", str(templar.template(play.strategy))
        if not hosts:
            yield Finding("", f"{text}: nothing is told of tasks that have no host")
        elif strategy_class(strategy) is None:
            yield Finding("failed", f"{text}: ansible-core finds no strategy {strategy}, and ends there")
        elif strategy == constants.DEFAULT_STRATEGY or strategy.startswith("ansible_mitogen.svc."):
            yield Finding("", text)
        else:
            yield Finding("note", f"{text}, under its own strategy {strategy}, which is not ours: below as under ours")
        decider = self._decider(play)
        for task in _tasks(play):
            found: Counter[Decision] = Counter(self._decide(decider, play, task, host) for host in hosts)
            for decision, number in found.items():
                yield Finding(*_describe(task, decision, number, len(hosts)))

    def _decider(self, play: Play) -> Decider:
        found = strategy_class()
        if found is None:
            raise CommandError("the collection ansible_mitogen.svc is not installed where ansible-core looks for it")
        # As the strategy manager makes one, without a run around it: `load` reads only these of it.
        strategy = object.__new__(found)
        strategy._loader, strategy._variable_manager = self._loader, self._variables
        chosen = settings.load(strategy, play)
        trust = plugin_trust(chosen, found._original_path)
        return Decider(self._adapter, trust, transport.is_handled, force_fork=chosen.task_workers == "fork")

    def _decide(self, decider: Decider, play: Play, task: Any, host: Any) -> Decision:
        variables = self._variables.get_vars(play=play, host=host, task=task)
        templar = self._adapter.templar(SimpleNamespace(_loader=self._loader), variables)
        action = task.action
        if "{" in action:
            try:
                action = str(templar.template(action))
            except AnsibleError:
                action = None
        queued = QueuedTask(host, task, variables, None, None)
        return decider.decide(queued, action, debugger_active=False, templar=templar)


def _prepare_core(extra_vars: list[str]) -> None:
    """What core's own commands do before they read an inventory."""
    from ansible import context

    # That our strategy is not one of ansible-core's is no news here.
    os.environ.setdefault("ANSIBLE_DEPRECATION_WARNINGS", "false")
    context.CLIARGS = context.CLIArgs({"extra_vars": tuple(extra_vars)})
    init_plugin_loader()


def _tasks(play: Play) -> Iterator[Any]:
    for block in play.compile():
        yield from _of_block(block)
    for block in play.handlers:
        yield from _of_block(block)


def _of_block(block: Any) -> Iterator[Any]:
    for part in (*block.block, *block.rescue, *block.always):
        if hasattr(part, "block"):
            yield from _of_block(part)
        elif not part.implicit and part.action not in constants._ACTION_META:
            yield part


def _describe(task: Any, decision: Decision, number: int, of: int) -> tuple[str, str]:
    level = "note" if decision.kind is WorkerKind.FORK else "ok"
    some = "" if number == of else f" on {number} of {of} hosts"
    name = re.sub(r"\s+", " ", task.get_name())
    return level, f"{name}: {_EXPLAINED[decision.kind]} ({decision.reason}){some}"
