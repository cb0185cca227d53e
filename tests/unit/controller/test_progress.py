# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The progress line of long transfers: on a terminal only, after two seconds only, gone at the end, and counted."""

from __future__ import annotations

import os
import pty
import sys
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from ansible_mitogen_svc.controller import progress
from ansible_mitogen_svc.services.file import Progress
from ansible_mitogen_svc.statistics import counters


def at(done: int) -> Progress:
    return Progress("/srv/image.iso", "ssh web1", done, 1_000_000_000, 50e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counters.take()
    return now


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """The other end of a terminal, and the terminal. pytest puts its own stdout in place when a test begins."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    with open(theirs, "w", encoding="utf-8") as stream:
        yield ours, stream
    os.close(ours)


def shown() -> int:
    return int(counters.report()["transfer"].get("shown", 0))


def test_a_long_transfer_shows_a_line_on_a_terminal(
    clock: list[float], terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, stream = terminal
    monkeypatch.setattr(sys, "stdout", stream)
    line = progress.ProgressLine()
    line(1, at(0))
    clock[0] += 2.5
    line(1, at(250_000_000))
    line(1, at(260_000_000))
    text = os.read(ours, 4096).decode()
    assert "ssh web1: /srv/image.iso: 250 of 1000 MB 25%, 50.0 MB/s, 0:15 left" in text
    assert text.count("MB/s") == 1 and text.endswith("\r")
    line(1, None)
    assert os.read(ours, 4096).decode().strip() == ""
    assert shown() == 1


def test_a_short_transfer_shows_none(
    clock: list[float], terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, stream = terminal
    monkeypatch.setattr(sys, "stdout", stream)
    line = progress.ProgressLine()
    line(1, at(0))
    clock[0] += 1.9
    line(1, at(900_000_000))
    line(1, None)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    assert shown() == 0


def test_nothing_is_shown_where_there_is_no_terminal(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    line = progress.ProgressLine()
    line(1, at(0))
    clock[0] += 60
    line(1, at(900_000_000))
    line(1, None)
    assert capsys.readouterr() == ("", "")
    assert shown() == 0
