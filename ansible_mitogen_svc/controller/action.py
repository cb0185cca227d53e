# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The mixin in front of action plugins: says what a command is before core composes and runs it.

Lives in a task worker; action_classes.py puts it in front of a plugin. What is overridden here, and where core has it
(ansible/plugins/action/__init__.py, checked on 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1):

- `_configure_module`, `_low_level_execute_command`: recognise module runs and hand them to a zygote.
- `_compute_environment_string`: notes the variables behind the text.
- `_make_tmp_path`, `_transfer_data`, `_fixup_perms2`, `_remove_tmp_path`, `_remote_expand_user`: become steps that
  travel with the next job, where the answer is known beforehand. In every other case core's own.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
from typing import TYPE_CHECKING, Any

from ansible import constants
from ansible.utils.display import Display

from ansible_mitogen_svc.controller.compat import zip_references
from ansible_mitogen_svc.controller.connection import AcceleratedConnection
from ansible_mitogen_svc.controller.identity import InterpreterFailed
from ansible_mitogen_svc.controller.late_jobs import why_too_early
from ansible_mitogen_svc.controller.payload import NotSplit, Payload
from ansible_mitogen_svc.controller.running import Job
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.controller.steps import Steps
from ansible_mitogen_svc.services.bootstrap import zygote_arguments
from ansible_mitogen_svc.statistics import counters

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase as _Core
else:
    # The real base is whatever class stands behind the mixin.
    _Core = object

display = Display()

#: Variables that a Python looks at while it starts: a process that runs already cannot take them over. Below HOME are
#: packages of the user's.
_STARTUP_VARIABLES = re.compile(
    r"PYTHON|HOME$|LD_|LANG$|LANGUAGE$|LC_|MALLOC_|GLIBC_TUNABLES$|OPENSSL_CONF$|GCONV_PATH$|LOCPATH$"
)
#: What a shell takes for a variable's name: core's command with another one in front does not even start Python.
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Paths in which the shell has nothing to expand.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./@%+,:=-]+")


class AcceleratedAction(_Core):
    """Mixin; see the module. `_svc` names are ours, all others core's."""

    _svc_bits: Any = None
    #: The payload of the module that is being run, in which a reference may stand for the zip.
    _svc_abridged: bytes | None = None
    _svc_environment: dict[str, Any] | None = None
    #: What core last chose to run a Python module with.
    _svc_interpreter = ""
    #: The same, as it stood in a module's command.
    _svc_spelling = ""
    #: Above 0 while core runs a command whose output nobody reads as a terminal's.
    _svc_no_terminal = 0
    #: Further runs of the module that is about to run, see tree_copy.py; or the outcome, when it has been run already.
    _svc_batch: Any = None
    _svc_outcome: Any = None
    #: Has core compose the run that will follow the one that is about to be made, see one_trip.py.
    _svc_sequel: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        """An action may go on over a connection that it has made itself: from there on its methods are the plugin's."""
        super().__setattr__(name, value)
        if name == "_connection" and not isinstance(value, AcceleratedConnection):
            counters.add("other_connections", str(getattr(value, "ansible_name", None) or type(value).__module__))
            plugin, classes = super(), type(self).__mro__
            mixins = classes[: classes.index(AcceleratedAction) + 1]
            for ours in {each for mixin in mixins for each in vars(mixin) if not each.startswith("__")}:
                if callable(getattr(plugin, ours, None)):
                    self.__dict__[ours] = getattr(plugin, ours)

    # -- module runs

    def _configure_module(self, *args: Any, **kwargs: Any) -> Any:
        # Outside of a module run whoever asks may look at the payload.
        with zip_references.abridged() if self._svc_no_terminal else contextlib.nullcontext():
            built = super()._configure_module(*args, **kwargs)
        self._svc_abridged = built[0].b_module_data
        self._svc_make_way(*args, **kwargs)
        self._svc_bits = built[0]
        if built[0].module_style == "new" and built[0].shebang:
            self._svc_interpreter = built[0].shebang.replace("#!", "", 1).strip()
            self._svc_spelling = ""
        return built

    def _svc_whole(self, data: Any) -> Any:
        """What is sent on core's own way: the payload with its zip in it, and everything else as it is."""
        abridged = self._svc_abridged
        return zip_references.whole(abridged) if abridged is not None and data is abridged else data

    def _svc_make_way(self, module_name: str, module_args: Any, *unused: Any, **more: Any) -> None:
        """End our own processes where they would be noticed: a process of a user keeps the user from being removed."""
        name = module_args.get("name")
        if name and module_name.rpartition(".")[2] == "user" and module_args.get("state") == "absent":
            self._connection.svc_retire_user(str(name))

    def _compute_environment_string(self, raw_environment_out: dict[str, Any] | None = None) -> Any:
        raw: dict[str, Any] = {} if raw_environment_out is None else raw_environment_out
        text = super()._compute_environment_string(raw)
        self._svc_environment = dict(raw)
        return text

    def _execute_module(self, *args: Any, **kwargs: Any) -> Any:
        self._svc_no_terminal += 1
        try:
            return super()._execute_module(*args, **kwargs)
        finally:
            self._svc_no_terminal -= 1
            self._svc_bits = self._svc_abridged = None

    def _low_level_execute_command(
        self, cmd: str, sudoable: bool = True, in_data: bytes | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        connection = self._connection
        given = cmd, in_data
        job = self._svc_module_job(in_data)
        if job is None or job.payload is None:
            in_data = self._svc_whole(in_data)
        if job is None and (self._svc_no_terminal or in_data is not None or not sudoable):
            more = {**dict(zip(("executable", "encoding_errors", "chdir"), args, strict=False)), **kwargs}
            # Core writes a directory and a shell into the command, which a zygote of ours would be found by.
            placed = bool(more.get("executable") or more.get("chdir"))
            job = Job(stdin=in_data) if placed else self._svc_snippet_job(cmd, sudoable, in_data)
        if job is not None and job.interpreter:
            cmd, in_data = f"{self._svc_spelled(job, cmd)} {zygote_arguments()}", None
        connection.svc_job = job
        try:
            result = super()._low_level_execute_command(cmd, sudoable, in_data, *args, **kwargs)
            reason = why_too_early(job, result["stdout"], connection.svc_polls)
            if not reason:
                return result
            self._svc_count("cold", reason)
            # No module run is under way any more, so this is a command like others.
            return self._low_level_execute_command(given[0], sudoable, given[1], *args, **kwargs)
        except InterpreterFailed as failure:
            self._svc_count("cold", failure.reason)
            display.vvv(f"what core's own way makes of it is the result: {failure}", host=connection.svc_name)
            connection.svc_job = None
            return super()._low_level_execute_command(given[0], sudoable, self._svc_whole(given[1]), *args, **kwargs)
        finally:
            connection.svc_job = None

    def _svc_spelled(self, job: Job, cmd: str) -> str:
        """The interpreter as core wrote it into a module's command: quoted since 2.21, before that a piece of shell."""
        if job.payload is not None:
            quoted = shlex.quote(job.interpreter)
            self._svc_spelling = quoted if quoted in cmd else job.interpreter
        return self._svc_spelling or job.interpreter

    def _svc_snippet_job(self, cmd: str, sudoable: bool, in_data: bytes | None) -> Job:
        """The job for a shell command that needs no terminal.

        Under become it runs in the identity's zygote, which a become command started, as a shell there would run it:
        no further become command is needed, nor a password.
        """
        become = sudoable and self._connection.become is not None and not self._connection.svc_become_wants_terminal
        if become and self._svc_interpreter and self._connection.svc_target() is not None:
            shell = getattr(self._connection._shell, "executable", None) or self._play_context.executable or "/bin/sh"
            return Job(interpreter=self._svc_interpreter, argv=(shell, "-c", cmd), stdin=in_data)
        return Job(stdin=in_data)

    def _svc_module_job(self, in_data: bytes | None) -> Job | None:
        """The job for the payload that core is about to run; None when it goes another way, which is counted."""
        bits = self._svc_bits
        if bits is None or not self._svc_no_terminal:
            return None
        if in_data is None or in_data is not bits.b_module_data:
            if not bits.b_module_data or bits.module_style != "new" or in_data is None:
                self._svc_count("core", self._svc_why_files(bits))
            self._svc_bits = None
            return None
        self._svc_bits = None
        if self._connection.svc_target() is None:
            return self._svc_count("core", f"no agent: {self._connection.svc_unavailable}")
        environment = self._svc_environment or {}
        changed = self._connection.svc_environment_changes()
        startup = sorted(name for name in {**changed, **environment} if _STARTUP_VARIABLES.match(name))
        startup = startup or sorted(name for name in environment if not _SHELL_NAME.fullmatch(name))
        if startup:
            return self._svc_count("cold", f"environment {startup[0]}")
        try:
            payload: Payload = session_lifecycle.current().splitter.split(in_data)
        except NotSplit as error:
            return self._svc_count("core", str(error))
        batch = self._svc_batch if self._svc_batch is not None and self._svc_batch.fits(payload) else None
        sequel, self._svc_sequel = self._svc_sequel, None
        outcome = self._svc_outcome
        return Job(self._svc_interpreter, environment, payload, batch=batch, outcome=outcome, sequel=sequel)

    def _svc_why_files(self, bits: Any) -> str:
        if bits.module_style != "new":
            return f"module style {bits.module_style}"
        if self._connection.svc_unavailable is not None:
            return f"no agent: {self._connection.svc_unavailable}"
        if self._connection.svc_become_wants_terminal:
            return f"become {self._connection.become.name} wants a terminal"
        return "async" if self._task.async_val else "files kept on the target"

    @staticmethod
    def _svc_count(path: str, reason: str) -> None:
        counters.add("module_runs", path, reason)

    # -- temporary directories and files

    def _remote_expand_user(self, path: str, sudoable: bool = True, pathsep: Any = None) -> Any:
        tilde, *rest = path.split("/", 1)
        home = self._svc_home(sudoable) if tilde == "~" else None
        if home is not None:
            expanded = self._connection._shell.join_path(home, *rest)
            if ".." not in expanded.split("/"):  # core refuses some of those
                return expanded
        with _NoTerminal(self):
            return super()._remote_expand_user(path, sudoable, pathsep)

    def _svc_home(self, sudoable: bool) -> str | None:
        """Home directory of the login user when that is whose `~` core would ask for."""
        if getattr(self._connection, "_remote_is_local", False):
            return None
        if sudoable and self._connection.become and self.get_become_option("become_user"):
            return None
        target = self._connection.svc_target()
        if target is None or self._get_remote_user() not in (None, "", target.hello.user):
            return None
        return target.hello.home if _PLAIN_PATH.fullmatch(target.hello.home) else None

    def _make_tmp_path(self, remote_user: Any = None) -> Any:
        shell = self._connection._shell
        self._connection.svc_directory = None
        if self._svc_can_own_directory():
            path = self._svc_make_own_directory()
            if path is not None:
                self._cleanup_remote_tmp = True
                shell.tmpdir = path
                return path
        plain = not getattr(self._connection, "_remote_is_local", False) and not self._is_become_unprivileged()
        if plain and not getattr(shell, "_IS_WINDOWS", False) and self._connection.svc_target() is not None:
            remote_tmp = self.get_shell_option("remote_tmp", default="~/.ansible/tmp")
            parent = self._remote_expand_user(remote_tmp, sudoable=False)
            if _PLAIN_PATH.fullmatch(parent) and parent.startswith("/"):
                path = shell.join_path(parent, shell._generate_temp_dir_name(), "")
                self._connection.svc_steps.add(self._svc_tmpdir_step(), path, 0o700)
                self._connection.svc_make_directory = functools.partial(self._svc_make_as_core, remote_user)
                self._cleanup_remote_tmp = True
                shell.tmpdir = path
                return path
        return self._svc_make_as_core(remote_user)

    def _svc_tmpdir_step(self) -> str:
        # What goes on in the background, or is tried again, needs its files after the connection has ended.
        background = self._task.async_val or constants.DEFAULT_KEEP_REMOTE_FILES
        return "mkdir" if background or self._connection.svc_retries else "tmpdir"

    def _svc_can_own_directory(self) -> bool:
        """Whether files are for a become user who could not read the login user's, and a zygote can write them."""
        connection = self._connection
        if constants.DEFAULT_KEEP_REMOTE_FILES:
            return False  # someone, maybe the login user, will look at what core leaves there
        ours = not getattr(connection, "_remote_is_local", False) and not connection.svc_become_wants_terminal
        return ours and self._is_become_unprivileged() and connection.svc_target() is not None

    def _svc_make_own_directory(self) -> str | None:
        """Have the become user make a temporary directory, where core would have the login user make one for both.

        None when it cannot be made that way, whatever the reason: core says what is wrong.
        """
        shell, connection = self._connection._shell, self._connection
        places = self.get_shell_option("system_tmpdirs", default=None) or ["/var/tmp"]
        wanted = self._remote_expand_user(self.get_shell_option("remote_tmp", default="~/.ansible/tmp"), sudoable=False)
        parent = wanted.rstrip("/") if wanted.rstrip("/") in places else places[0]
        interpreter = self._svc_interpreter or connection.svc_interpreter()
        if not (_PLAIN_PATH.fullmatch(parent) and parent.startswith("/") and interpreter):
            return None
        path = str(shell.join_path(parent, shell._generate_temp_dir_name(), ""))
        steps = Steps()
        steps.add(self._svc_tmpdir_step(), path, 0o700)
        connection.svc_job, connection.svc_make_directory = Job(interpreter, steps=steps), None
        try:
            made = super()._low_level_execute_command(f"{interpreter} {zygote_arguments()}", sudoable=True)
        except InterpreterFailed:
            return None
        finally:
            connection.svc_job = None
        return path if made["rc"] == 0 and connection.svc_directory is not None else None

    def _svc_make_as_core(self, remote_user: Any) -> Any:
        with _NoTerminal(self):
            return super()._make_tmp_path(remote_user)

    def _remove_tmp_path(self, tmp_path: Any, force: bool = False) -> Any:
        shell = self._connection._shell
        if tmp_path is None and shell.tmpdir:
            tmp_path = shell.tmpdir
        if not (force or self._should_remove_tmp_path(tmp_path)):
            return None
        steps = self._connection.svc_steps
        if steps.steps and steps.steps[0][0] in ("mkdir", "tmpdir") and steps.steps[0][1] == tmp_path:
            # Nobody ever used it.
            steps.take(first_blob=0)
        elif self._svc_owns(tmp_path):
            self._connection.svc_cast("remove", tmp_path)
        else:
            with _NoTerminal(self):
                return super()._remove_tmp_path(tmp_path, force)
        shell.tmpdir = None
        self._connection.svc_directory = None
        return None

    def _svc_owns(self, tmp_path: str) -> bool:
        """Whether the zygote that does our steps can remove a temporary directory."""
        if self._connection.svc_directory is not None:
            return bool(self._connection.svc_directory.has(tmp_path))
        reachable = self._connection.svc_unavailable is None
        plain = _PLAIN_PATH.fullmatch(tmp_path) is not None and tmp_path.startswith("/")
        return reachable and plain and not self._is_become_unprivileged()

    def _transfer_data(self, remote_path: Any, data: Any) -> Any:
        data = self._svc_whole(data)
        if self._connection.svc_target() is None or not self._connection.svc_is_temporary(remote_path):
            return super()._transfer_data(remote_path, data)
        if isinstance(data, str):
            data = data.encode(errors="surrogateescape")
        elif not isinstance(data, bytes):
            raise TypeError("data must be either a string or bytes")
        display.vvv(f"PUT {len(data)} bytes TO {remote_path}", host=self._connection.svc_name)
        # core puts it into a temporary file first, which only its owner may read
        self._connection.svc_steps.add("put", remote_path, self._connection.svc_new_mode(0o600), data=data)
        return remote_path

    def _fixup_perms2(self, remote_paths: Any, remote_user: Any = None, execute: bool = True) -> Any:
        windows = getattr(self._connection._shell, "_IS_WINDOWS", False)
        directory = self._connection.svc_directory
        theirs = directory is not None and all(map(directory.has, remote_paths))
        relative = not all(path.startswith("/") for path in remote_paths)
        others = windows or relative or self._is_become_unprivileged() and not theirs
        if others or self._connection.svc_target() is None:
            with _NoTerminal(self):
                return super()._fixup_perms2(remote_paths, remote_user, execute)
        if execute:
            for path in remote_paths:
                self._connection.svc_steps.add("chmod", path, "u+rwx")
        return remote_paths


class _NoTerminal:
    """Commands that core runs within are for their output, and want no terminal."""

    def __init__(self, action: AcceleratedAction) -> None:
        self._action = action

    def __enter__(self) -> None:
        self._action._svc_no_terminal += 1

    def __exit__(self, *exception: object) -> None:
        self._action._svc_no_terminal -= 1
