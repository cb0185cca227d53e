# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The choice of an adapter."""

from __future__ import annotations

import re

import pytest

from ansible_mitogen_svc.controller.compat import probe


@pytest.mark.parametrize(
    ("version", "adapter"),
    [
        ("2.19.14", "RawResultsAdapter"),
        ("2.20.0", "RawResultsAdapter"),
        ("2.21.5", "UnifiedResultsAdapter"),
        ("2.22.0rc1", "UnifiedResultsAdapter"),
    ],
)
def test_known_versions_get_their_adapter(version: str, adapter: str, monkeypatch) -> None:
    of_this_core = "Raw" if probe.parse_version(probe.core_version) in probe.RAW else "Unified"
    if not adapter.startswith(of_this_core):
        monkeypatch.setattr(probe, "core_version", version)
        found = probe.compatibility.__wrapped__()  # the adapter is chosen, and core has not what it imports
        said = rf"does not know ansible-core {re.escape(version)} \((ImportError|ModuleNotFoundError): "
        assert found.adapter is None and re.search(said, found.problem)
        return
    monkeypatch.setattr(probe, "core_version", version)
    assert type(probe.compatibility.__wrapped__().adapter).__name__ == adapter


def test_a_core_that_lacks_a_name_is_not_used_and_the_name_is_told(monkeypatch) -> None:
    monkeypatch.setattr(probe, "core_version", "3.0.0")
    monkeypatch.setattr(probe, "_NAMES_USED", (("ansible.plugins.strategy", "StrategyBase._gone", frozenset()),))
    found = probe.compatibility.__wrapped__()
    assert found.adapter is None and "StrategyBase._gone" in found.problem and "3.0.0" in found.problem


def test_a_method_with_other_parameters_counts_as_missing(monkeypatch) -> None:
    names = (("ansible.plugins.strategy", "StrategyBase._queue_task", frozenset({"colour"})),)
    monkeypatch.setattr(probe, "_NAMES_USED", names)
    assert probe.missing_names() == ["ansible.plugins.strategy.StrategyBase._queue_task(colour)"]


def test_a_core_older_than_the_oldest_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(probe, "core_version", "2.18.3")
    assert probe.compatibility.__wrapped__().adapter is None


@pytest.mark.parametrize("name", ["_build_command", "_init_shm"])
def test_the_ssh_transport_is_not_used_with_a_plugin_that_lacks_a_name(name: str, monkeypatch) -> None:
    from ansible.plugins.connection import ssh

    from ansible_mitogen_svc.controller import transport
    from ansible_mitogen_svc.controller.transport import local
    from ansible_mitogen_svc.controller.transport import ssh as ours

    assert transport._is_usable.__wrapped__(ours.TRANSPORT)
    monkeypatch.delattr(ssh.Connection, name)
    assert not transport._is_usable.__wrapped__(ours.TRANSPORT)
    assert transport._is_usable.__wrapped__(local.TRANSPORT)


def test_an_attribute_that_the_ssh_plugin_no_longer_sets_counts_as_missing(monkeypatch) -> None:
    from ansible.plugins.connection import ssh

    from ansible_mitogen_svc.controller.compat import ssh as compat

    assert compat.missing() == []

    def other(self, *arguments) -> None:
        self.host = self.user = self.sshpass_pipe = None

    monkeypatch.setattr(ssh.Connection, "__init__", other)
    assert compat.missing() == ["ansible.plugins.connection.ssh.Connection().shm"]
