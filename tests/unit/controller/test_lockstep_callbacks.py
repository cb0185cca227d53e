# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What callbacks have noted of a play's strategy, corrected. The integration tests have plays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_mitogen_svc.controller.compat.lockstep_callbacks import note_strategy

LOCKSTEP_CALLBACKS = frozenset({"linear", "debug"})


class Callback:
    _is_lockstep = False


class Other:
    pass


@pytest.mark.parametrize(("strategy", "together"), [("linear", True), ("free", False)])
def test_a_class_derived_elsewhere_is_known_by_what_it_derives_from(strategy: str, together: bool) -> None:
    derived: Any = type("Derived", (Callback,), {"__module__": "builtins", "_is_lockstep": not together})()
    other = Other()
    note_strategy(SimpleNamespace(_callback_plugins=[other, derived]), strategy)
    assert derived._is_lockstep is together and not hasattr(other, "_is_lockstep")


def test_a_core_that_keeps_its_callbacks_elsewhere_is_no_error() -> None:
    note_strategy(SimpleNamespace(), "linear")
