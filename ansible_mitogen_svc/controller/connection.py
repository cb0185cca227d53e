# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The mixin in front of core's connection plugins: what core calls, and where it goes.

Lives in a task worker (thread or forked process), one object per task, as core makes them. The class of a connection is
the plugin's own with `AcceleratedConnection` in front (`accelerated`), so options, names and everything not said here
are core's. Its lower halves are running.py (jobs and steps) and reach.py (the target).

Theory of operation
1. The action mixin says what a command is (`Job`: a module run, or a shell snippet that needs no terminal), then lets
   core compose it; the composed command arrives at `exec_command`, like any other.
2. A module run goes to the zygote of the command's identity; a snippet to the login zygote, run by the login shell as
   sshd would. Everything else, and everything on a target where no agent can run, goes to core's own `exec_command`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Hashable
from typing import Any, cast

from ansible import constants
from ansible.errors import AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.utils.display import Display
from ansible.utils.path import unfrackpath

from ansible_mitogen_svc.controller import file_transfer, transport
from ansible_mitogen_svc.controller.batch import Outcome
from ansible_mitogen_svc.controller.compat.session_isolation import workers_are_isolated
from ansible_mitogen_svc.controller.local_command import own_session
from ansible_mitogen_svc.controller.pair import NotSent
from ansible_mitogen_svc.controller.running import RunningConnection
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.controller.steps import Steps

display = Display()


class AcceleratedConnection(RunningConnection):
    """Mixin; see the module. `svc` names are ours, all others core's."""

    # -- core's interface

    def is_pipelining_enabled(self, wrap_async: bool = False) -> bool:
        """Modules need no file on the target; where no agent can run, what the plugin itself says.

        A become plugin that cannot pipeline must have the true answer, and so waits for the connection.
        """
        # Up to 2.19, that files shall be kept is looked at by the connection, later by the action.
        if wrap_async or constants.DEFAULT_KEEP_REMOTE_FILES or self.svc_files_wanted or self.svc_become_wants_terminal:
            return bool(super().is_pipelining_enabled(wrap_async))
        if self.svc_transport.packs_ahead and (self.become is None or self.become.pipelining):
            self.svc_begin()
            return True
        return self.svc_target() is not None or bool(super().is_pipelining_enabled(wrap_async))

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> Outcome:
        """Run what core composed; see the module."""
        job, self.svc_job = self.svc_job, None
        if job is not None and job.outcome is not None:
            return job.outcome
        if self.svc_held_run is not None and (job is None or job.payload is None or self.svc_target() is None):
            raise NotSent
        if job is not None or self.svc_via:
            target = self.svc_target()
            if target is not None:
                if job is not None and job.interpreter:
                    # What core's plugins say, and people look for in logs; what became of it is said after it.
                    display.vvv(f"EXEC {cmd}", host=self.svc_name)
                    return self._svc_guard(lambda: self.svc_run_with_retries(target, job, cmd))
                # Beyond a hop there is no terminal: core's own plugin cannot go there.
                if self.svc_via or not self._svc_wrapped(cmd):
                    return self._svc_guard(lambda: self._svc_execute(target, cmd, in_data))
        self.svc_flush()
        self.svc_settle()
        with self._svc_as_in_a_worker_process():
            return cast(Outcome, super().exec_command(cmd, in_data=in_data, sudoable=sudoable))

    def _svc_as_in_a_worker_process(self) -> contextlib.AbstractContextManager[None]:
        """Where core's plugin starts programs in a thread of the process that has the terminal, they do not get it."""
        if session_lifecycle.in_worker_process() or not workers_are_isolated(self.svc_variables):
            return contextlib.nullcontext()
        return own_session(self.svc_plugin_class)

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file from the controller, as the login user, as core's plugins do."""
        target = self.svc_target()
        if target is None:
            with self._svc_as_in_a_worker_process():
                super().put_file(in_path, out_path)
            return
        source, destination = self._svc_local_path(in_path), to_text(out_path, errors="surrogate_or_strict")
        if not self.svc_is_temporary(destination):
            destination = self._svc_local_path(destination)
        try:
            file = open(to_bytes(source, errors="surrogate_or_strict"), "rb")
        except FileNotFoundError:
            raise AnsibleFileNotFound(f"file or module does not exist: {source}") from None  # as core's plugins
        with file:
            mode = self.svc_new_mode(os.fstat(file.fileno()).st_mode)
            self._svc_guard(lambda: file_transfer.put(self, target, file, destination, mode))

    def _svc_local_path(self, path: str | bytes) -> str:
        """A path as core's plugin takes it: the one for this machine (local) expands it, from the playbook's place."""
        # 2.19 and 2.20 have bytes in both.
        name = to_text(path, errors="surrogate_or_strict")
        if not hasattr(self, "cwd"):
            return str(name)
        place = to_text(self.cwd, errors="surrogate_or_strict") if self.cwd else None
        return str(unfrackpath(name, basedir=place))

    def svc_is_temporary(self, path: str) -> bool:
        """Whether `path` is in the task's temporary directory: what is written there is for a job to come.

        A relative one (`remote_tmp`) begins where the login does, which is where the agent is, and no zygote.
        """
        directory = self._shell.tmpdir
        return bool(directory) and directory.startswith("/") and path.startswith(f"{directory.rstrip('/')}/")

    def svc_new_mode(self, mode: int) -> int:
        """What a file that is put gets as its mode: over ssh (sftp) that of the file here, else the default."""
        return mode & 0o777 if self.svc_transport.keeps_modes else 0o666

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file to the controller, as the login user, as core's plugins do."""
        target = self.svc_target()
        if target is None:
            with self._svc_as_in_a_worker_process():
                super().fetch_file(in_path, out_path)
            return
        source = self._svc_local_path(in_path)
        keep_mode = self.svc_transport.keeps_modes and self._options.get("ssh_transfer_method") != "piped"
        self._svc_guard(lambda: file_transfer.fetch(self, target, source, out_path, keep_mode))

    def reset(self) -> None:
        """End the connection and core's own (ControlPersist)."""
        self.svc_forget_target()
        super().reset()

    @property
    def svc_become_wants_terminal(self) -> bool:
        """Whether the become plugin's program (machinectl, run0) stands with a terminal between its user and the
        command, and looks for keys of its own: no place for a zygote's frames.
        """
        return bool(getattr(self.become, "require_tty", False))


@functools.cache
def _accelerated_class(base: Hashable) -> type[Any]:
    assert isinstance(base, type)
    return type(base.__name__, (AcceleratedConnection, base), {"__module__": base.__module__, "__doc__": base.__doc__})


def accelerated(connection: Any, inventory_host: str) -> Any:
    """The connection with our mixin in front, or the very same one when it is not ours to serve.

    The plugin's state is taken over as it is; the two share nothing but that, and the old one is not used again.
    """
    found = transport.transport_for(connection)
    if found is None or isinstance(connection, AcceleratedConnection):
        return connection
    replacement: Any = object.__new__(_accelerated_class(cast(Hashable, type(connection))))
    replacement.__dict__ = connection.__dict__
    replacement.svc_transport = found
    replacement.svc_plugin_class = type(connection)
    replacement.svc_inventory_host = inventory_host
    replacement.svc_variables = {}
    replacement.svc_templar = None
    replacement.svc_job = None
    replacement.svc_steps = Steps()
    replacement.svc_make_directory = None
    replacement.svc_held_run = None
    replacement.svc_polls = False
    replacement.svc_loop_ahead = None
    replacement.svc_directory = None
    replacement.svc_known_files = []
    replacement.svc_last_target = None
    replacement.svc_under_way = None
    replacement.svc_settings = None
    replacement.svc_unavailable = None
    replacement.svc_held = []
    return replacement
