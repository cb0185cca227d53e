# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A real ssh whose other end has gone without a word, as behind a firewall that forgot it, ControlPersist included."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import random
import signal
import tempfile
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from rig.delay_proxy import DelayProxy
from rig.errors import RigUnavailable
from rig.loopback_sshd import LoopbackSshd

from ansible_mitogen_svc.controller.connection import accelerated
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.services.link import AnswerTimeout
from ansible_mitogen_svc.statistics import counters

Server = tuple[LoopbackSshd, pathlib.Path]


@pytest.fixture
def server() -> Iterator[Server]:
    """An sshd, and a directory for the client's control sockets."""
    # Not pytest's directory: the path of a socket has to fit 108 bytes.
    with contextlib.ExitStack() as stack:
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="svc-cp-", dir="/tmp")))
        try:
            sshd = stack.enter_context(LoopbackSshd())
        except RigUnavailable as reason:
            pytest.skip(f"no sshd: {reason}")
        try:
            yield sshd, place
        finally:
            session_lifecycle.close()
            session_lifecycle.begin()


def connection(server: Server, port: int = 0) -> Any:
    """As a task has one; `port` of a proxy."""
    sshd, place = server
    context = PlayContext()
    context.timeout = 3
    context.remote_addr = sshd.addresses[0]
    made = connection_loader.get("ssh", context)
    common = f"{sshd.common_args} -o HostKeyAlias=[{sshd.addresses[0]}]:{sshd.port}"
    options = {
        "host": sshd.addresses[0], "port": port or sshd.port, "remote_user": sshd.user, "timeout": 3,
        "private_key_file": str(sshd.private_key), "ssh_common_args": common, "control_path_dir": str(place),
        "ssh_args": "-o ControlMaster=auto -o ControlPersist=60s",
    }  # fmt: skip
    made.set_options(direct=options)
    found = accelerated(made, "host")
    found.svc_variables = {"ansible_python_interpreter": "/usr/bin/python3"}
    found.svc_templar = types.SimpleNamespace(template=lambda value: value)
    return found


def control_processes(place: pathlib.Path) -> list[int]:
    """ssh's background processes that listen in `place`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"ssh: {place}".encode()):
                found.append(int(path.parent.name))
    return found


def silences() -> float:
    return float(counters.report().get("connections", {}).get("silent", 0))


def test_a_new_connection_does_not_go_through_the_dead_ones_control_socket(server: Server) -> None:
    silent = connection(server).svc_target()
    (master,) = control_processes(server[1])
    gone = server[0].sessions()
    for pid in gone:
        os.kill(pid, signal.SIGSTOP)
    before = silences()
    silent.answered -= 100
    target = connection(server).svc_target()
    assert target is not silent
    header = {"op": "execute", "argv": ["/bin/sh", "-c", "exit 3"], "environment": {}, "steps": []}
    assert target.call(target.login_number, header, [b""], timeout=30).header["rc"] == 3
    assert master not in control_processes(server[1])
    assert silences() == before + 1


def test_a_slow_link_that_a_file_fills_is_not_taken_for_a_dead_one(server: Server, tmp_path: pathlib.Path) -> None:
    sshd, place = server
    source = tmp_path / "source"
    source.write_bytes(random.Random(3).randbytes(1 << 20))
    with DelayProxy((sshd.addresses[0], sshd.port), 0.0, rate=100_000) as link:
        target = connection(server, link.port).svc_target()
        session = session_lifecycle.current()
        assert not session.is_moving(target, 60)
        arguments = {"context_id": target.context_id, "source": str(source), "destination": str(tmp_path / "there")}
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            put = threads.submit(session.move_file, "put", **arguments, mode=0o600, zygote=0)
            while link.statistics().bytes_up < 200_000:
                time.sleep(0.1)
            with pytest.raises(AnswerTimeout):
                target.call(target.login_number, {"op": "ping"}, timeout=3)
            target.answered -= 100
            before = silences()
            assert connection(server, link.port).svc_target() is target
            assert silences() == before
            assert put.result(60)["size"] == 1 << 20
    assert (tmp_path / "there").read_bytes() == source.read_bytes()
    assert not session.is_moving(target, 60)
