# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a connection plugin would start is learnt from the plugin itself; what it does beside that keeps core's path."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext

from ansible_mitogen_svc.controller import settings, transport
from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan
from ansible_mitogen_svc.controller.local_command import LocalCommandTransport
from ansible_mitogen_svc.services.bootstrap import StartFailure
from ansible_mitogen_svc.services.connection import PREAMBLE_SIZE

COMMAND = f"/bin/sh -c 'exec python3 {PREAMBLE_SIZE.decode()}'"
PLUGIN = """
import subprocess
from ansible.plugins.connection import ConnectionBase

class Connection(ConnectionBase):
    transport = "box"
    ansible_name = "some.where.box"
    log = []

    def _connect(self):
        return self

    def _start(self, *argv, **more):
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def exec_command(self, cmd, in_data=None, sudoable=True):
{body}

    put_file = fetch_file = close = None
"""
PLAIN = """
        process = self._start("box", "exec", "-i", "name", "/bin/sh", "-c", cmd, env={"BOX": "yes"}, cwd="/")
        out, err = process.communicate(in_data)
        self.log.append((process.returncode, out, err))
        return process.returncode, out, err
"""


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> Iterator[Any]:
    module = types.ModuleType("plugin_for_tests")
    sys.modules[module.__name__] = module
    exec(PLUGIN.replace("{body}", getattr(request, "param", PLAIN)), vars(module))
    made = module.Connection(PlayContext(), None)
    made._play_context.remote_addr = "name"
    made.svc_plugin_class = module.Connection
    yield made
    del sys.modules[module.__name__]


def establish(connection: Any, start: Any = None) -> list[ConnectionPlan]:
    plans: list[ConnectionPlan] = []
    LocalCommandTransport().establish(connection, COMMAND, start or plans.append)
    return plans


def test_the_plugin_says_what_is_started_with_which_environment_and_where(connection: Any) -> None:
    (plan,) = establish(connection)
    assert plan.argv == tuple(map(str.encode, ("box", "exec", "-i", "name", "/bin/sh", "-c", COMMAND)))
    assert (plan.environment, plan.cwd, plan.name) == ({"BOX": "yes"}, "/", "box name")


@pytest.mark.parametrize(
    "connection",
    ['        import tempfile\n        self._start("box", tempfile.mkdtemp(), cmd, env={"BOX": "yes"}).wait()'],
    indirect=True,
)
def test_temporary_files_of_the_plugin_make_no_other_connection_but_what_they_are_made_of_does(
    connection: Any,
) -> None:
    first, again = establish(connection) + establish(connection)
    assert first.argv != again.argv and first.key == again.key
    connection._options["config"] = {"of": "somebody else"}
    assert establish(connection)[0].key != first.key


def test_the_plugin_sees_how_the_start_failed_and_the_failure_is_told(connection: Any) -> None:
    def fail(plan: ConnectionPlan) -> None:
        raise StartFailure(125, b"", b"no such box", "exit")

    with pytest.raises(StartFailure) as failure:
        establish(connection, fail)
    assert failure.value.stderr == b"no such box"
    assert connection.log[-1] == (125, b"", b"no such box")


@pytest.mark.parametrize(
    ("connection", "reason"),
    [
        ('        return self._start("box", cmd).communicate(in_data, timeout=5)', "limits the time"),
        ('        self._start("box", cmd).wait(); self._start("box", "commit").wait()', "more than one program"),
        ('        self._start("box", *(["sudo"] if sudoable else []), cmd).wait()', "wraps commands"),
        ('        raise RuntimeError("no box here")', "starts no program"),
    ],
    indirect=["connection"],
)
def test_a_plugin_that_does_more_for_each_command_keeps_cores_path(connection: Any, reason: str) -> None:
    with pytest.raises(StartFailure) as failure:
        establish(connection)
    assert reason in failure.value.reason


@pytest.mark.parametrize(
    "connection",
    ['        self.log.append(self._start("echo", "1.2").communicate()); self._start("box", cmd).wait()'],
    indirect=True,
)
def test_what_a_plugin_asks_before_it_starts_the_command_is_really_run(connection: Any) -> None:
    assert establish(connection)[0].argv == (b"box", COMMAND.encode())
    assert connection.log[-1] == (b"1.2\n", b"")


def test_other_threads_start_processes_as_ever(connection: Any) -> None:
    seen: list[bytes] = []

    def start(plan: ConnectionPlan) -> None:
        # while this thread is observed, the same plugin runs a command in another one
        module = sys.modules["plugin_for_tests"]
        other = threading.Thread(
            target=lambda: seen.append(
                vars(module)["subprocess"].Popen(["echo", COMMAND], stdout=subprocess.PIPE).communicate()[0]
            )
        )
        other.start()
        other.join()

    establish(connection, start)
    assert seen == [COMMAND.encode() + b"\n"]


def test_transports_are_found_by_the_plugins_full_names_only() -> None:
    assert transport.is_handled("containers.podman.podman") and transport.is_handled("docker")
    for name in ("some.where.podman", "winrm", "__init__", "../ssh", "", "community.docker.docker_api"):
        assert not transport.is_handled(name)


def test_a_plugin_that_the_settings_name_is_served() -> None:
    before = settings.current()
    settings.activate(settings.Settings(local_command_plugins=("some.where.box", "ansible.legacy.machine")))
    try:
        assert transport.is_handled("some.where.box") and transport.is_handled("machine")
        assert not transport.is_handled("some.where.machine")
    finally:
        settings.activate(before)
