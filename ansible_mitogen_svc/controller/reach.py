# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How a task's connection finds its target, or makes the Session connect to it.

The lower half of the mixin in front of core's connection plugins (the upper one is connection.py); lives in a task
worker.

Theory of operation
1. What distinguishes one connection from another is known to its transport, as a tuple (`Transport.settings`). A
   tuple that led to a target before leads to it again without composing anything.
2. Otherwise the transport composes the command and the Session starts it, or hands out the connection that another
   task has made meanwhile.
3. A target that was silent for long is asked for a sign of life before a task uses it: firewalls forget connections
   without a word, and core would connect anew then.
4. `svc_begin` does the same in a thread beside the task, so that core can pack the module in the meantime.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleValueOmittedError
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

from ansible_mitogen_svc.controller import transport
from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan
from ansible_mitogen_svc.controller.connection_timeout import timeout_of
from ansible_mitogen_svc.controller.hop import VIA, Hop
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.controller.workers.gate import fork_gate
from ansible_mitogen_svc.controller.workers.side_thread import start_beside
from ansible_mitogen_svc.services import bootstrap
from ansible_mitogen_svc.services.bootstrap import StartFailure
from ansible_mitogen_svc.services.connection import PREAMBLE_SIZE
from ansible_mitogen_svc.spans import CONNECT, recorder
from ansible_mitogen_svc.statistics import counters

if TYPE_CHECKING:
    from ansible.plugins.connection import ConnectionBase as _Core
else:
    # The real base is whatever class stands behind the mixin.
    _Core = object

display = Display()

#: {settings of a connection: key of the plan they led to}, to find a target without composing its command again.
_known_keys: dict[tuple[Any, ...], str] = {}


def wants_files(enabled: Any, origin: Any) -> bool:
    """Whether the value and the origin of a connection's option ``pipelining`` ask for modules as files."""
    return not enabled and str(origin).startswith("var:")


class ReachingConnection(_Core):
    """Mixin; see the module."""

    svc_transport: transport.Transport
    #: The plugin's own class, without our mixins.
    svc_plugin_class: type[Any]
    svc_variables: Mapping[str, Any]
    svc_templar: Any
    svc_inventory_host: str
    #: The target of this task's latest command.
    svc_last_target: Target | None
    #: A connection attempt in a thread of its own.
    svc_under_way: Future[Target | None] | None
    #: What `_svc_settings` was computed from, and gave.
    svc_settings: tuple[tuple[Any, ...], tuple[Any, ...]] | None
    #: Keys of the connections that are kept open for the task of this one.
    svc_held: list[str]
    #: Why no agent runs on this target; None while nothing is known against it.
    svc_unavailable: str | None

    def svc_target(self) -> Target | None:
        """The connected target; None when no agent can run there (then `svc_unavailable` says why).

        :raises AnsibleError: the connection failed, in core's words.
        """
        under_way, self.svc_under_way = self.svc_under_way, None
        if under_way is not None:
            started = time.monotonic()
            with fork_gate.blocking():
                try:
                    return under_way.result()
                finally:
                    recorder.waited(CONNECT, started)
        if self.svc_unavailable is not None:
            return None
        target = self._svc_known_target()
        if target is not None and target is not self.svc_last_target and not self._svc_still_there(target):
            target = None
        if target is not None:
            if target is not self.svc_last_target:
                session_lifecycle.current().note_use(target.key, self.svc_inventory_host)
                counters.add("connections", "reused")
                self.svc_last_target = target
            return target
        if getattr(self._shell, "_IS_WINDOWS", False):
            self.svc_unavailable = "shell of Windows"
            return None
        return self._svc_connect()

    def _svc_connect(self) -> Target | None:
        """A new connection, or one that another task has made meanwhile. As `svc_target`."""
        found: list[Target] = []
        hop = self._svc_hop()

        def start_here(plan: ConnectionPlan) -> None:
            self._svc_hold(plan.key)
            found.append(session_lifecycle.current().connect(plan, self.svc_inventory_host))

        def start(plan: ConnectionPlan) -> None:
            if hop is None:
                start_here(plan)
            else:
                hop.start(plan, start_here)

        started = time.monotonic()
        try:
            self.svc_transport.establish(self, self._svc_remote_command(), start)
        except StartFailure as failure:
            if hop is not None:
                raise AnsibleConnectionFailure(_no_way(self.svc_name, hop.name, failure)) from None
            self.svc_unavailable = failure.reason
            display.vvv(f"no agent on this target ({failure}), its tasks go core's own way", host=self.svc_name)
            return None
        finally:
            recorder.waited(CONNECT, started)
        _known_keys[self._svc_settings()] = found[-1].key
        self.svc_last_target = found[-1]
        return found[-1]

    def _svc_still_there(self, target: Target) -> bool:
        """Whether a known target can be used; one that does not answer after a long silence is let go."""
        is_moving = session_lifecycle.current().is_moving
        if target.was_heard_of(is_moving):
            return True
        seconds = timeout_of(self, self.svc_templar) or float(constants.DEFAULT_TIMEOUT)
        if target.still_answers(seconds, is_moving):
            return True
        display.vvv(f"no answer within {seconds:.0f} seconds after a long silence: connecting anew", host=self.svc_name)
        counters.add("connections", "silent")
        if not self.svc_via and self.svc_plugin_class.reset is not ConnectionBase.reset:
            super().reset()  # the plugin's: what it keeps open itself (ControlPersist) is as dead
        if target.alive:
            self.svc_forget_target()
        return False

    def _svc_known_target(self) -> Target | None:
        key = _known_keys.get(self._svc_settings())
        if key is None:
            return None
        self._svc_hold(key)
        return session_lifecycle.current().known_target(key)

    def _svc_hold(self, key: str) -> None:
        if key not in self.svc_held:
            session_lifecycle.current().hold(key)
            self.svc_held.append(key)

    def svc_release(self) -> None:
        """The task has ended: its connections may be closed to make room for others."""
        under_way = self.svc_under_way
        if under_way is not None and not under_way.done():
            under_way.add_done_callback(lambda _: self.svc_release())
            return
        held, self.svc_held = self.svc_held, []
        session_lifecycle.release(held)

    def _svc_settings(self) -> tuple[Any, ...]:
        """The transport's settings; core replaces both objects they are taken from, or calls `set_option`."""
        sources = (self._options, self._play_context)
        if self.svc_settings is None or any(a is not b for a, b in zip(self.svc_settings[0], sources, strict=True)):
            hop = self._svc_hop()
            ways = () if hop is None else hop.settings()
            self.svc_settings = (sources, (*self.svc_transport.settings(self), ways))
        return self.svc_settings[1]

    def svc_environment_changes(self) -> Mapping[str, str | None]:
        """As `Transport.environment_changes`; nothing beyond a hop, which has no environment in common with us."""
        changes = self.svc_transport.environment_changes()
        return {} if changes and self.svc_via else changes

    @property
    def svc_via(self) -> str:
        """The host that this one is reached from; empty for the controller."""
        return self._svc_variable(VIA)

    def _svc_variable(self, name: str) -> str:
        """A variable of the task's, as text; empty when it is not set, or omitted."""
        value = self.svc_variables.get(name)
        try:
            value = self.svc_templar.template(value) if value is not None else None
        except AnsibleValueOmittedError:
            return ""
        return str(value) if value is not None else ""

    def _svc_hop(self) -> Hop | None:
        via = self.svc_via
        if not via:
            return None
        timeout = math.ceil(timeout_of(self, self.svc_templar))
        return Hop(via, self.svc_variables, self.svc_templar, timeout, (self.svc_inventory_host,))

    @property
    def svc_files_wanted(self) -> bool:
        """Whether a variable of the host or the play (not a default, nor a setting for all) turns pipelining off.

        Who does that wants modules as files on the target, to look at them or because something there insists on it.
        """
        try:
            enabled, origin = self.get_option_and_origin("pipelining")
        except KeyError:
            return False
        return wants_files(enabled, origin)

    def svc_begin(self) -> None:
        """Start connecting, when that is still to be done, and return at once; `svc_target` gives the outcome.

        While ssh logs in, core packs the module: together they are most of what a run's first task takes.
        """
        if self.svc_unavailable is not None or self.svc_under_way is not None or self._svc_known_target() is not None:
            return
        self.svc_under_way = start_beside(self.svc_target, "svc-connect")

    def _svc_remote_command(self) -> str:
        interpreters, exact = self._svc_interpreters()
        return bootstrap.remote_command(interpreters, PREAMBLE_SIZE.decode(), exact=exact)

    def _svc_interpreters(self) -> tuple[list[str], bool]:
        """What to start the agent with: the task's interpreter when it is known, else what core's discovery tries."""
        variables = self.svc_variables
        configured = self._svc_variable("ansible_python_interpreter")
        if not configured:
            configured = constants.config.get_config_value("INTERPRETER_PYTHON", variables=dict(variables))
        if configured and not configured.startswith("auto"):
            return [configured], True
        discovered = (variables.get("ansible_facts") or {}).get("discovered_interpreter_python")
        if discovered:
            return [str(discovered)], True
        fallback = constants.config.get_config_value("INTERPRETER_PYTHON_FALLBACK", variables=dict(variables))
        return [str(name) for name in fallback] + ["/usr/bin/python3"], False

    def svc_interpreter(self) -> str:
        """What modules are most likely run with: what is configured or was discovered, or runs the agent."""
        interpreters, exact = self._svc_interpreters()
        target = self.svc_target()
        return interpreters[0] if exact else target.hello.executable if target is not None else ""

    @property
    def svc_name(self) -> str:
        """The host, for messages."""
        return str(self._play_context.remote_addr or self.svc_inventory_host)

    def svc_forget_target(self) -> None:
        """End the connection, if there is one; the next `svc_target` connects anew."""
        target = self._svc_known_target()
        _known_keys.pop(self._svc_settings(), None)
        self.svc_unavailable = None
        if target is not None:
            session_lifecycle.current().disconnect(target)

    def set_option(self, *args: Any, **kwargs: Any) -> Any:
        """Core's; an option that an action changes in place may name another target."""
        self.svc_settings = None
        return super().set_option(*args, **kwargs)


def _no_way(host: str, hop: str, failure: StartFailure) -> str:
    said = (failure.stderr or failure.stdout).decode("utf-8", "replace").strip()
    return (
        f"No Python could be started on {host}, which is reached from {hop} ({VIA}), so that there is no other way to "
        f"it: {failure.reason}{': ' if said else ''}{said}"
    )
