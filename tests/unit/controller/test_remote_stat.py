# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which actions ask the stat module for less: core's own, as they are known."""

from __future__ import annotations

import importlib

import pytest
from ansible.plugins.loader import action_loader

from ansible_mitogen_svc.controller import action_classes
from ansible_mitogen_svc.controller.compat import remote_stat
from ansible_mitogen_svc.controller.one_trip import OneTripCopyAction


@pytest.mark.parametrize("prefix", ["", "ansible.legacy."])
@pytest.mark.parametrize("name", sorted(remote_stat.KNOWN))
def test_this_core_has_the_actions_that_were_looked_at(name: str, prefix: str) -> None:
    found = action_loader.get_with_context(prefix + name, class_only=True)
    assert remote_stat.reads_little_of_stat(found.object)


def test_actions_of_others_ask_for_everything() -> None:
    core = importlib.import_module("ansible.plugins.action.copy").ActionModule
    assert not remote_stat.reads_little_of_stat(
        type("ActionModule", (core,), {"__module__": "ansible.plugins.action.x"})
    )
    assert not remote_stat.reads_little_of_stat(importlib.import_module("ansible.plugins.action.command").ActionModule)


def test_an_action_that_changed_asks_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    core = importlib.import_module("ansible.plugins.action.fetch").ActionModule
    monkeypatch.setitem(remote_stat.KNOWN, "fetch", {"another"})
    remote_stat.reads_little_of_stat.cache_clear()
    try:
        assert not remote_stat.reads_little_of_stat(core)
    finally:
        remote_stat.reads_little_of_stat.cache_clear()


def test_single_files_of_this_cores_copy_are_foreseen() -> None:
    found = action_loader.get_with_context("copy", class_only=True)
    assert issubclass(action_classes._accelerated_class(found.object), OneTripCopyAction)
    changed = type("ActionModule", (found.object,), {"__module__": "ansible.plugins.action.x"})
    assert not issubclass(action_classes._accelerated_class(changed), OneTripCopyAction)
