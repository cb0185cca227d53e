# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What ends a run ends it, also where Python throws away what the handler of a signal raises."""

from __future__ import annotations

import signal

import pytest

from ansible_mitogen_svc.controller.workers.heard_signals import HeardSignals


class Lost:
    """Python ignores what is raised in here."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_lost_is_raised_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    lost = Lost()
    with HeardSignals() as heard:
        heard.check()
        del lost
        with pytest.raises(KeyboardInterrupt):
            heard.check()
    assert signal.getsignal(signal.SIGINT) == before


def test_handlers_are_put_back_but_for_one_that_has_put_another_there() -> None:
    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        with HeardSignals():
            pass
        assert signal.getsignal(signal.SIGINT) is handle
        with pytest.raises(KeyboardInterrupt), HeardSignals():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
