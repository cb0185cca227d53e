# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The ssh connection: exactly the command that core's ssh plugin would run, kept open.

But for one option: `-T`, where core has `-tt` for commands that want a terminal. What goes over this connection is
binary, and a terminal that the user's configuration forces upon every command (RequestTTY) would edit it.

Everything about ssh comes from the plugin: `_build_command` with all its options, the password by sshpass or askpass,
retries and the wording of errors by its `_ssh_retry` and `_handle_error` (ansible/plugins/connection/ssh.py, what
is private there is in compat/ssh.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.utils.display import Display

from ansible_mitogen_svc.controller.compat import ssh as compat
from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan, plan_key
from ansible_mitogen_svc.controller.escalation import EscalationRefused, Refusal
from ansible_mitogen_svc.controller.identity import NotBecome
from ansible_mitogen_svc.controller.target import Hello
from ansible_mitogen_svc.services.bootstrap import PASSWORD_FD, StartFailure

display = Display()

#: Exit status of ssh itself, for whatever reason (ssh(1)).
SSH_FAILED = 255
#: Seconds beyond the connection's own timeout that logging in and starting a Python may take.
LOGIN_ALLOWANCE = 50.0


class SshTransport:
    """See the module and `Transport`."""

    names = frozenset({"ssh", "ansible.builtin.ssh", "ansible.legacy.ssh", "ansible_mitogen.svc.ssh"})
    packs_ahead = True
    keeps_modes = True

    def problem(self) -> str | None:
        """See `Transport`."""
        missing = compat.missing()
        return f"core's ssh connection plugin lacks {', '.join(missing[:3])}" if missing else None

    def settings(self, connection: Any) -> tuple[Any, ...]:
        """All options of the plugin, and what it still takes from the play context."""
        context = connection._play_context
        options = tuple(sorted((name, repr(value)) for name, value in connection._options.items()))
        return ("ssh", context.remote_addr, context.port, context.remote_user, context.password, options)

    def establish(self, connection: Any, command: str, start: Callable[[ConnectionPlan], None]) -> None:
        """See `Transport`. The plugin's ``reconnection_retries`` apply."""
        connection.host = connection.get_option("host") or connection._play_context.remote_addr
        display.vvv(f"ESTABLISH SSH CONNECTION FOR USER: {connection.user}", host=connection.host)
        executable = connection.get_option("ssh_executable")
        compat.look_for_sshpass()
        composed = connection._build_command(executable, "ssh", "-T", connection.host, command)
        argv = list(composed)
        compat.attempt(connection, argv, lambda: self._attempt(connection, composed, argv, start))

    def _attempt(
        self, connection: Any, composed: list[bytes], argv: list[bytes], start: Callable[[ConnectionPlan], None]
    ) -> tuple[int, bytes, bytes]:
        """One try; gives what the ssh plugin's own try would: status, output and error output of ssh.

        Core's retry looks at `argv` to see whether sshpass is in front, so it is brought up to date in place.
        """
        with compat.password_source(connection, composed) as source:
            argv[:] = source.argv
            shown = " ".join(shlex.quote(part.decode("utf-8", "replace")) for part in source.argv)
            display.vvv(f"SSH: EXEC {shown}", host=connection.host)
            plan = ConnectionPlan(
                key=plan_key(argv, source.password or b""),
                name=f"ssh {connection.host}",
                argv=tuple(source.argv),
                environment=source.environment,
                password=source.password if PASSWORD_FD in source.argv else None,
                timeout=float(connection.get_option("timeout")) + LOGIN_ALLOWANCE,
            )
            try:
                start(plan)
            except StartFailure as failure:
                return self._failed(connection, source.argv, failure)
        return 0, b"", b""

    def environment_changes(self) -> Mapping[str, str | None]:
        """See `Transport`: commands run elsewhere."""
        return {}

    def shell(self, hello: Hello) -> str:
        """See `Transport`: sshd runs commands with the user's login shell."""
        return hello.shell

    def refused(self, connection: Any, error: EscalationRefused, seconds: float) -> AnsibleError:
        """See `Transport`; wording of core's `_bare_run`."""
        if error.refusal is Refusal.TIMEOUT:
            # core's _examine_output keeps a line that has not ended, such as a prompt nobody knew, for the next look
            output = error.stdout[: error.stdout.rfind(b"\n") + 1].decode("utf-8", "replace")
            waited = f"Timeout ({seconds:.0f}s) waiting for privilege escalation prompt"
            return AnsibleConnectionFailure(f"{waited}: {output}")
        return AnsibleError(f"{error.refusal.value} {connection.become.name} password")

    def ended(self, error: NotBecome) -> None:
        """See `Transport`: ssh has ended as well, with what the command said."""

    @staticmethod
    def _failed(connection: Any, argv: list[bytes], failure: StartFailure) -> tuple[int, bytes, bytes]:
        if failure.reason == "timeout":
            raise AnsibleConnectionFailure(
                f"Failed to connect to the host via ssh: no answer within {failure.seconds:.0f} seconds. "
                "Consider a larger timeout (ANSIBLE_TIMEOUT or ansible_ssh_timeout)."
            )
        if failure.reason == "cannot-start":
            raise AnsibleError(f"Unable to execute ssh command line on a controller: {failure.stderr.decode()}")
        compat.explain_host_key(connection, argv, failure.returncode, failure.stderr)
        if failure.returncode == SSH_FAILED or (argv[0] == b"sshpass" and failure.returncode):
            return failure.returncode, failure.stdout, failure.stderr
        raise failure


TRANSPORT = SshTransport()
