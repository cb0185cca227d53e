# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Transfers over a real ssh that is cut at a random byte: no corrupt file, and nothing left after the next one."""

from __future__ import annotations

import os
import pathlib
import random
import time
from collections.abc import Iterator

import pytest
from rig.delay_proxy import DelayProxy
from rig.errors import RigUnavailable
from rig.loopback_sshd import LoopbackSshd

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan
from ansible_mitogen_svc.controller.session import Session
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services import bootstrap
from ansible_mitogen_svc.services.connection import PREAMBLE_SIZE

SIZE = 3 << 20


@pytest.fixture(scope="module")
def sshd() -> Iterator[LoopbackSshd]:
    try:
        server = LoopbackSshd().__enter__()
    except RigUnavailable as reason:
        pytest.skip(f"no sshd: {reason}")
    yield server
    server.close()


@pytest.fixture
def proxy(sshd: LoopbackSshd) -> Iterator[DelayProxy]:
    with DelayProxy((sshd.addresses[0], sshd.port), 0.0) as running:
        yield running


def connect(session: Session, sshd: LoopbackSshd, proxy: DelayProxy, key: str) -> Target:
    remote = bootstrap.remote_command(["/usr/bin/python3"], PREAMBLE_SIZE.decode(), exact=True)
    options = f"-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {sshd.private_key}".split()
    words = ["ssh", *options, "-o", "IdentitiesOnly=yes", "-p", str(proxy.port), f"{sshd.user}@127.0.0.1", remote]
    plan = ConnectionPlan(key=key, name=key, argv=tuple(word.encode() for word in words), timeout=60.0)
    return session.connect(plan, "localhost")


@pytest.mark.parametrize("direction", ["put", "fetch"])
@pytest.mark.parametrize("cuts", [5, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_transfers_cut_at_a_random_byte(
    cuts: int, direction: str, session: Session, sshd: LoopbackSshd, proxy: DelayProxy, tmp_path: pathlib.Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    there = place / "there"
    there.write_bytes(b"old")
    dice = random.Random(cuts)
    contents = {b"old"}
    failed = 0
    for number in range(cuts):
        source = tmp_path / "source"
        source.write_bytes(dice.randbytes(SIZE))
        contents.add(source.read_bytes())
        target = connect(session, sshd, proxy, f"cut {number}")
        # Questions for a file that is fetched are some hundred bytes each.
        proxy.cut_after(dice.randrange(SIZE + SIZE // 50 if direction == "put" else 1500))
        failed += not moved(session, direction, target, source, there)
        proxy.cut_after(None)
        assert there.read_bytes() in contents, f"cut {number} left a corrupt file"
    assert failed > cuts // 2
    assert moved(session, direction, connect(session, sshd, proxy, "whole"), source, there)
    assert there.read_bytes() == source.read_bytes()
    deadline = time.monotonic() + 20
    while os.listdir(place) != ["there"]:
        assert time.monotonic() < deadline, os.listdir(place)
        time.sleep(0.05)


def moved(session: Session, direction: str, target: Target, source: pathlib.Path, there: pathlib.Path) -> bool:
    more = {"mode": 0o600, "zygote": 0} if direction == "put" else {}
    try:
        session.move_file(
            direction, context_id=target.context_id, source=str(source), destination=str(there), **more
        )
    except service.CallFailed as error:
        assert error.type_name.endswith("TargetLost"), error
        return False
    return True
