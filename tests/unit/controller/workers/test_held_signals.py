# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Signals that end a run are held for a while, and none is lost afterwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ansible_mitogen_svc.controller.workers.held_signals import ENDING, HeldSignals


class Handled(Exception):
    """What the handlers of these tests raise, with the number of the signal."""


def handle(number, _frame):
    raise Handled(number)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.signal(number, handle) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handled(number) -> bool:
    try:
        signal.raise_signal(number)
    except Handled as error:
        return error.args == (number,)
    return False


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_is_handled_when_it_is_no_longer_held(number) -> None:
    reached = False
    with pytest.raises(Handled), HeldSignals():
        signal.raise_signal(number)
        reached = True
    assert reached and all(signal.getsignal(each) is handle for each in ENDING)


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("comes", ENDING)
def test_a_signal_while_handlers_are_changed_leaves_all_signals_handled(monkeypatch, step: int, comes) -> None:
    """It comes just after a handler was put in its place, or back."""
    change, steps = signal.signal, iter(range(9))

    def change_and_meet(number, handler):
        before = change(number, handler)
        if next(steps) == step:
            signal.raise_signal(comes)
        return before

    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", change_and_meet)
        with pytest.raises(Handled), HeldSignals():
            pass
    assert all(handled(number) for number in ENDING)
