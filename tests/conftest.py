# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""For every test: ``import rig`` works whatever pytest's import mode; signals work however the session was started."""
from __future__ import annotations

import pathlib
import signal
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
for path in (str(HERE), str(HERE.parent)):
    if path not in sys.path:
        sys.path.insert(0, path)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Without this a CI job's SIGTERM would skip every fixture's clean-up and leave containers behind."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    # A shell that starts the tests in the background ignores SIGINT for them, and so would all that they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(f'signal {number}')
