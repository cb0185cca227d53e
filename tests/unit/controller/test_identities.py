# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Identities of a real agent: how many are kept, which ones make room, and that none in use does."""

from __future__ import annotations

import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ansible_mitogen_svc.controller import settings
from ansible_mitogen_svc.controller.identity import Identity, identify, zygote_for
from ansible_mitogen_svc.controller.target import AGENT, Target, Zygote
from ansible_mitogen_svc.services.answers import Answer, ZygoteGone
from ansible_mitogen_svc.services.bootstrap import zygote_arguments
from ansible_mitogen_svc.services.link import AnswerTimeout
from ansible_mitogen_svc.statistics import counters

LIMIT = 3


@pytest.fixture(autouse=True)
def small_limit() -> Iterator[None]:
    before = settings.current()
    settings.activate(settings.Settings(identity_limit=LIMIT))
    yield
    settings.activate(before)


def identity(name: str) -> Identity:
    """A Python of its own, as another interpreter or become user would have."""
    return identify(f"WHO={name} exec {sys.executable} {zygote_arguments()}", f"python-of-{name}", None, 20.0)


def start(target: Target, name: str) -> Zygote:
    return zygote_for(target, identity(name), "/bin/sh")[0]


def who(target: Target, zygote: Zygote, command: str = "echo $WHO") -> Answer:
    header = {"op": "execute", "argv": ["/bin/sh", "-c", command], "environment": {}}
    return target.call(zygote.number, header, [b""], timeout=60)


def test_the_longest_unused_identity_makes_room_for_one_more(connect: Callable[[str], Target]) -> None:
    target = connect("one")
    first, second, third = (start(target, name) for name in ("first", "second", "third"))
    who(target, first)  # which leaves the second as the one longest unused
    before = counters.report()["identities"]
    fourth = start(target, "fourth")
    assert counters.report()["identities"]["recycled"] == before["recycled"] + 1
    for zygote, name in ((first, b"first\n"), (third, b"third\n"), (fourth, b"fourth\n")):
        assert who(target, zygote).blobs[0] == name
    with pytest.raises(ZygoteGone):
        who(target, second)
    target.forget_zygote(second.number)
    assert who(target, start(target, "second")).blobs[0] == b"second\n"


def test_an_identity_in_use_is_never_ended_and_the_limit_is_exceeded_for_it(connect: Callable[[str], Target]) -> None:
    target = connect("one")
    names = [f"user{number}" for number in range(LIMIT + 2)]
    answers: dict[str, Answer] = {}
    threads = []
    for name in names:
        zygote = start(target, name)
        threads.append(
            threading.Thread(
                target=lambda name=name, zygote=zygote: answers.update(
                    {name: who(target, zygote, "read line < /dev/null; sleep 3; echo $WHO")}
                )
            )
        )
        threads[-1].start()
    for thread in threads:
        thread.join(60)
    assert {name: answer.blobs[0] for name, answer in answers.items()} == {n: n.encode() + b"\n" for n in names}
    with pytest.raises(ZygoteGone):
        # All are idle now: the next one brings their number down to the limit.
        start(target, "late")
        for name in names:
            zygote = target.zygote(identity(name).name)
            assert zygote is not None
            who(target, zygote)


def test_a_replaced_identity_finishes_what_it_runs_while_another_one_takes_its_place(
    connect: Callable[[str], Target], tmp_path: pathlib.Path
) -> None:
    target = connect("one")
    old = start(target, "first")
    answers: list[Answer] = []
    command = f"until test -e {tmp_path}/go; do sleep 0.1; done; echo $WHO"
    running = threading.Thread(target=lambda: answers.append(who(target, old, command)))
    running.start()
    while not target.call(old.number, {"op": "ping"}).header["jobs"]:
        time.sleep(0.01)
    target.forget_zygote(old.number)
    target.cast(AGENT, {"op": "replace", "zygote": old.number})
    new = start(target, "first")
    assert new.number != old.number and who(target, new).blobs[0] == b"first\n"
    assert not answers, "it was cut off"
    (tmp_path / "go").touch()
    running.join(60)
    assert answers[0].blobs[0] == b"first\n"
    with pytest.raises(ZygoteGone):
        who(target, old)


def ask(target: Target, name: str, timeout: float, patience: float = 60.0) -> Answer:
    """As `zygote_for` asks, without starting what it is told to."""
    return target.call(AGENT, {"op": "resolve", "identity": name, "patience": patience}, timeout=timeout)


def test_an_identity_whose_starter_died_is_started_by_another_task(connect: Callable[[str], Target]) -> None:
    target = connect("one")
    known = identity("late")
    assert ask(target, known.name, 5).header["start"]  # and nothing more is heard of that task
    with pytest.raises(AnswerTimeout):
        ask(target, known.name, 0.5)
    assert ask(target, known.name, 5, patience=0.5).header["start"]
    with pytest.raises(AnswerTimeout):
        ask(target, known.name, 0.5)


def test_a_task_that_waits_for_a_dead_starter_starts_the_identity_itself(
    connect: Callable[[str], Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible_mitogen_svc.controller.identity.ADOPTION_TIMEOUT", -18.0)
    target = connect("one")
    known = identity("late")
    assert ask(target, known.name, 5).header["start"]
    started = time.monotonic()
    monkeypatch.setattr(
        "ansible_mitogen_svc.controller.identity._start", lambda target, identity, shell: ("started", "by itself")
    )
    assert zygote_for(target, known, "/bin/sh") == ("started", "by itself")
    assert 2 <= time.monotonic() - started < 4


def test_all_who_wait_for_an_identity_that_is_abandoned_ask_again(connect: Callable[[str], Target]) -> None:
    target = connect("one")
    known = identity("refused")
    assert ask(target, known.name, 5).header["start"]
    with pytest.raises(AnswerTimeout):
        ask(target, known.name, 0.5)  # it waits there still, and has given up
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(zygote_for(target, known, "/bin/sh")[0]))
    waiting.start()
    time.sleep(0.5)
    assert not found
    target.cast(AGENT, {"op": "abandon", "identity": known.name, "zygote": 0})
    waiting.join(30)
    assert isinstance(found[0], Zygote) and who(target, found[0]).blobs[0] == b"refused\n"
