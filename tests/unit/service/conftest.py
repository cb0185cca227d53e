# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Fixtures of the service framework's tests: a router, children of it by fork-and-exec or over ssh, pools.

All of it is real: children are processes, those over ssh come through a throw-away sshd on 127.0.0.1.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import mitogen.master
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "importable"))

from rig.errors import RigUnavailable
from rig.loopback_sshd import LoopbackSshd

from ansible_mitogen_svc.service import Pool

Connect = Callable[[], Any]


@pytest.fixture(scope="session")
def packed_modules() -> dict[str, Any]:
    """Modules as mitogen ships them; shared between routers, or every test would find, scan and compress them anew."""
    return {}


@pytest.fixture
def router(packed_modules: dict[str, Any]) -> Iterator[mitogen.master.Router]:
    """A master's router; afterwards its children are gone and no thread of it is left."""
    broker = mitogen.master.Broker()
    broker.shutdown_timeout = 1.0
    router = mitogen.master.Router(broker)
    router.responder._cache = packed_modules
    yield router
    broker.shutdown()
    broker.join()


@pytest.fixture(scope="session")
def sshd() -> Iterator[LoopbackSshd]:
    """One sshd for all tests that need it."""
    try:
        server = LoopbackSshd()
        server.__enter__()
    except RigUnavailable as exc:
        pytest.skip(f"no sshd on this machine: {exc}")
    yield server
    server.close()


@pytest.fixture
def open_pool(router: mitogen.master.Router) -> Iterator[Callable[..., Pool]]:
    """Opens a pool on the router; it is closed afterwards."""
    pools: list[Pool] = []

    def open_one(*services: Any, **settings: Any) -> Pool:
        pools.append(Pool(router, services, **settings))
        return pools[-1]

    yield open_one
    for pool in pools:
        pool.close(deadline=2.0)


@pytest.fixture
def local(router: mitogen.master.Router) -> Connect:
    """Starts a child of the same Python."""
    return lambda: router.local(python_path=sys.executable)


@pytest.fixture
def over_ssh(request: pytest.FixtureRequest, router: mitogen.master.Router) -> Connect:
    """Starts a child over ssh. The sshd is only started when that is asked for."""

    def connect() -> Any:
        server = request.getfixturevalue("sshd")
        return router.ssh(
            hostname="127.0.0.1", port=server.port, username=server.user, identity_file=str(server.private_key),
            check_host_keys="enforce", python_path=sys.executable,
            ssh_args=[
                "-F", "none", "-o", f"UserKnownHostsFile={server.known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null",
            ],
        )

    return connect


@pytest.fixture(params=["local", "ssh"])
def connect(request: pytest.FixtureRequest, local: Connect, over_ssh: Connect) -> Connect:
    """Starts a child: once as a local process, once over ssh."""
    return local if request.param == "local" else over_ssh
