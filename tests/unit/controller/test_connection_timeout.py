# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Seconds for a host come from its plugin's option or, as they were written, from a play context."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible.template import Templar, trust_as_template

from ansible_mitogen_svc.controller.connection_timeout import timeout_of

TEMPLAR = Templar(DataLoader(), {"patience": 20})


def plugin(kind: str, said: Any, **options: Any) -> Any:
    context = PlayContext()
    context.timeout = said
    connection = connection_loader.get(kind, context, None)
    connection.set_options(direct=options)
    return connection


def test_the_plugins_own_option_counts() -> None:
    ssh = plugin("ssh", trust_as_template("{{ patience }}"), timeout=7)
    assert timeout_of(ssh, TEMPLAR) == timeout_of(ssh) == 7


@pytest.mark.parametrize("said", [20, "20", trust_as_template("{{ patience }}")])
def test_without_such_an_option_it_is_what_has_been_said_of_the_play(said: Any) -> None:
    assert timeout_of(plugin("local", said), TEMPLAR) == 20


def test_what_has_no_value_is_cores_default() -> None:
    local = plugin("local", trust_as_template("{{ patience }}"))
    assert timeout_of(local) == constants.DEFAULT_TIMEOUT
    local._play_context = SimpleNamespace(timeout=trust_as_template("{{ nothing_of_it }}"))
    with pytest.raises(AnsibleUndefinedVariable):
        TEMPLAR.template(local._play_context.timeout)
    assert timeout_of(local, TEMPLAR) == constants.DEFAULT_TIMEOUT
    local._play_context.timeout = None
    assert timeout_of(local, TEMPLAR) == constants.DEFAULT_TIMEOUT
