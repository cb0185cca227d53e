# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Transports for connection plugins that start a program on the controller for each command (docker exec, chroot, ...).

`LocalCommandTransport` is the base of most files in `transport/`; used in a task worker, any thread.

Theory of operation
1. The plugin itself says what it would start: its own `exec_command` runs with our command, and where it makes the
   process (`subprocess.Popen` as its module names it) it meets `ObservedPopen`. No option of a plugin is known here.
2. First the process is only looked at, and the plugin gets one that has ended well: once as for a command that may
   become another user, once as for one that may not. A plugin that makes a difference between them, does more than
   start one program or limits a command's time keeps core's path: what it does for each command would not be done
   for commands that go through an agent.
3. Then the agent is started in the place of the process, while files that the plugin made for it exist, and the plugin
   tidies up after a process that has ended.
4. When no agent comes up the task goes core's own path, so that the plugin explains in its own words what is wrong.
5. `ObservedPopen` is put into the plugin's module once and for all. It is `subprocess.Popen` but for a thread that is
   within `observing`, and there for every command but ours.
6. What core's own way starts in a thread (`own_session`) gets a session of its own, as core's worker processes have:
   no program can ask on the terminal, or be interrupted from it.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan, plan_key
from ansible_mitogen_svc.controller.connection_timeout import timeout_of
from ansible_mitogen_svc.controller.escalation import EscalationRefused, Refusal
from ansible_mitogen_svc.controller.identity import NotBecome
from ansible_mitogen_svc.controller.target import Hello
from ansible_mitogen_svc.services.bootstrap import StartFailure
from ansible_mitogen_svc.services.connection import PREAMBLE_SIZE

#: Seconds beyond the connection's own timeout that the program and a Python may take to start.
START_ALLOWANCE = 50.0
#: Given to the plugin as input of the command, so that it makes a way for input; nobody reads it.
SOME_INPUT = b"\n"


@dataclass(frozen=True)
class Started:
    """What a plugin wants to be started."""

    argv: tuple[bytes, ...]
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    cwd: str | None = None

    @property
    def lasting(self) -> tuple[bytes, ...]:
        """`argv` without the names of temporary files, which plugins make anew for each command."""
        prefix = os.fsencode(os.path.join(tempfile.gettempdir(), "tmp"))
        return tuple(b"" if argument.startswith(prefix) else argument for argument in self.argv)

    def resembles(self, other: Started) -> bool:
        """Whether both start the same."""
        return (self.lasting, self.environment, self.cwd) == (other.lasting, other.environment, other.cwd)


class EndedProcess:
    """What a plugin gets in the place of the process it started: one that has ended already."""

    def __init__(self, observation: Observation, returncode: int, stdout: bytes, stderr: bytes) -> None:
        self.returncode = returncode
        self.pid = 0
        self.stdin, self.stdout, self.stderr = io.BytesIO(), io.BytesIO(stdout), io.BytesIO(stderr)
        self._observation = observation

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        """Its output."""
        self.wait(timeout)
        return self.stdout.read(), self.stderr.read()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, at once."""
        self._observation.time_limited |= timeout is not None
        return self.returncode

    def poll(self) -> int:
        """Its exit status."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Too late."""

    def kill(self) -> None:
        """Too late."""

    def terminate(self) -> None:
        """Too late."""

    def __enter__(self) -> EndedProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Observation:
    """What a plugin starts for one command.

    Attributes:
        started: the process of the command; None as long as there is none.
        followed: processes that the plugin wanted after it; none of them was started.
        time_limited: the plugin limits how long the command may run.
    """

    def __init__(self, start: Callable[[Started], tuple[int, bytes, bytes]]) -> None:
        """:param start: called with what the plugin wants to start; status and output that it shall see."""
        self.started: Started | None = None
        self.followed = 0
        self.time_limited = False
        self._start = start

    def process(self, arguments: Any, keywords: Mapping[str, Any]) -> Any:
        """The process for a call of Popen."""
        if self.started is not None:
            self.followed += 1
            return EndedProcess(self, 0, b"", b"")
        if not isinstance(arguments, (str, bytes, os.PathLike)):
            arguments = list(arguments)
        argv = _argv(arguments, keywords)
        if not any(PREAMBLE_SIZE in argument for argument in argv):
            return subprocess.Popen(arguments, **keywords)
        cwd, environment = keywords.get("cwd"), keywords.get("env")
        self.started = Started(argv, environment and dict(environment), cwd and os.fspath(cwd))
        return EndedProcess(self, *self._start(self.started))


def _argv(arguments: Any, keywords: Mapping[str, Any]) -> tuple[bytes, ...]:
    parts = [arguments] if isinstance(arguments, (str, bytes, os.PathLike)) else arguments
    if keywords.get("shell"):
        parts = [keywords.get("executable") or "/bin/sh", "-c", *parts]
    return tuple(os.fsencode(part) for part in parts)


class _Observing(threading.local):
    observation: Observation | None = None
    own_session = False


_observing = _Observing()


class ObservedPopen(subprocess.Popen):  # type: ignore[type-arg]
    """`subprocess.Popen`, but for a thread that observes what a plugin starts."""

    def __new__(cls, args: Any, *rest: Any, **keywords: Any) -> Any:
        observation = _observing.observation
        if observation is None:
            return super().__new__(cls)
        return observation.process(args, keywords)

    def __init__(self, *args: Any, **keywords: Any) -> None:
        if _observing.own_session and not keywords.get("preexec_fn"):
            keywords["start_new_session"] = True
        super().__init__(*args, **keywords)


class _ObservedSubprocess:
    """The module `subprocess` with `ObservedPopen` in it."""

    Popen = ObservedPopen

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


_observed_subprocess = _ObservedSubprocess()


@contextlib.contextmanager
def observing(plugin_class: type[Any], observation: Observation) -> Iterator[None]:
    """Within it the calling thread's processes, started by the plugin's modules, are those of `observation`."""
    _put_in(plugin_class)
    _observing.observation = observation
    try:
        yield
    finally:
        _observing.observation = None


@contextlib.contextmanager
def own_session(plugin_class: type[Any]) -> Iterator[None]:
    """Within it what the plugin's modules start in the calling thread has a session of its own, without terminal."""
    _put_in(plugin_class)
    _observing.own_session = True
    try:
        yield
    finally:
        _observing.own_session = False


def _put_in(plugin_class: type[Any]) -> None:
    for base in plugin_class.__mro__:
        names = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        if names.get("subprocess") is subprocess:
            names["subprocess"] = _observed_subprocess
        if names.get("Popen") is subprocess.Popen:
            names["Popen"] = ObservedPopen


class LocalCommandTransport:
    """Base of the transports of such plugins; a subclass only has `names`."""

    names: frozenset[str]
    # Whether an agent can run decides what the plugin does with a module, and so what its errors look like.
    packs_ahead = False
    keeps_modes = False

    def problem(self) -> str | None:
        """See `Transport`: what a plugin starts is found out from what it starts."""
        return None

    def settings(self, connection: Any) -> tuple[Any, ...]:
        """All options of the plugin, and what such plugins take from the play context."""
        context = connection._play_context
        options = tuple(sorted((name, repr(value)) for name, value in connection._options.items()))
        places = (context.remote_addr, context.port, context.remote_user, context.executable, context.timeout)
        return (connection.ansible_name, *places, getattr(context, "docker_extra_args", None), options)

    def establish(self, connection: Any, command: str, start: Callable[[ConnectionPlan], None]) -> None:
        """See `Transport`."""
        plugin = object.__new__(connection.svc_plugin_class)
        # Without the become plugin: the command is the login user's, and has no prompt to wait for.
        plugin.__dict__ = dict(connection.__dict__, become=None)
        if not self._look(plugin, command, sudoable=False).resembles(self._look(plugin, command, sudoable=True)):
            raise _unsuitable("wraps commands that may become another user")
        failure: list[BaseException] = []

        def start_agent(started: Started) -> tuple[int, bytes, bytes]:
            try:
                start(self._plan(connection, started))
            except BaseException as error:
                failure.append(error)
                if isinstance(error, StartFailure):
                    return error.returncode or 1, error.stdout, error.stderr
                raise
            return 0, b"", b""

        observation = Observation(start_agent)
        error = self._run(plugin, command, observation, sudoable=True)
        if failure:
            raise failure[0]
        if observation.started is None:
            raise _unsuitable("starts no program here", error)

    def _look(self, plugin: Any, command: str, sudoable: bool) -> Started:
        observation = Observation(lambda started: (0, b"", b""))
        error = self._run(plugin, command, observation, sudoable)
        if observation.started is None:
            raise _unsuitable("starts no program here", error)
        if observation.time_limited:
            raise _unsuitable("limits the time of commands")
        if observation.followed:
            raise _unsuitable("starts more than one program")
        return observation.started

    @staticmethod
    def _run(plugin: Any, command: str, observation: Observation, sudoable: bool) -> Exception | None:
        """Let the plugin start `command`; the error it ends with, which core's own path will show."""
        try:
            with observing(type(plugin), observation):
                plugin.exec_command(command, in_data=SOME_INPUT, sudoable=sudoable)
        except Exception as error:
            return error
        return None

    def _plan(self, connection: Any, started: Started) -> ConnectionPlan:
        environment = started.environment
        more = [] if environment is None else [f"{name}={value}".encode() for name, value in environment.items()]
        if started.lasting != started.argv:
            # What a temporary file says comes from the options. By its name each task would have another connection.
            more.append(repr(self.settings(connection)).encode())
        return ConnectionPlan(
            key=plan_key(started.lasting, *sorted(more), (started.cwd or "").encode()),
            name=f"{connection.ansible_name.rpartition('.')[2]} {connection._play_context.remote_addr}",
            argv=started.argv,
            environment=environment,
            cwd=started.cwd,
            timeout=timeout_of(connection, getattr(connection, "svc_templar", None)) + START_ALLOWANCE,
        )

    def environment_changes(self) -> Mapping[str, str | None]:
        """See `Transport`: commands run elsewhere."""
        return {}

    def shell(self, hello: Hello) -> str:
        """See `Transport`: these plugins run commands with a shell that is given, whatever the account's is."""
        return "/bin/sh"

    def refused(self, connection: Any, error: EscalationRefused, seconds: float) -> AnsibleError:
        """See `Transport`. These plugins look for no refusal: what the become command said is the result of the task.

        :raises NotBecome: unless it was silent.
        """
        if error.refusal is Refusal.TIMEOUT:
            output = error.stdout.decode("utf-8", "replace")
            waited = f"Timeout ({seconds:.0f}s) waiting for privilege escalation prompt"
            return AnsibleConnectionFailure(f"{waited}: {output}")
        raise NotBecome(1, error.stdout, error.stderr)

    def ended(self, error: NotBecome) -> None:
        """See `Transport`: these plugins take what the command said for the result, in `refused` as well."""


def _unsuitable(reason: str, error: Exception | None = None) -> StartFailure:
    return StartFailure(None, b"", str(error or "").encode(), f"plugin {reason}")
