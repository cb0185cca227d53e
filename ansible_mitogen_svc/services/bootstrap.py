# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Starts a child on a target: the text that a bare Python is given, and the mitogen connection that gives it.

Used by `services/connection.py` (pool and broker threads of the ansible-playbook process) and, for the first stage of
zygotes under a become command, by `controller/identity.py`.

Theory of operation
1. The command that a connection plugin composed (ssh ..., docker exec ..., sh -c ...) ends in `remote_command()`: a
   line of POSIX shell that picks a Python and runs the first stage, which reads N compressed bytes and executes them.
2. Nobody waits for the first stage: the bytes are written as soon as the process exists and lie in the pipe until a
   Python reads them. That saves a round trip.
3. The child says MITO002 when its router runs, or SVC-NO-PYTHON / SVC-OLD-PYTHON. Whatever else it prints before
   is kept as its output, so that a failure can be explained with the words of the program that failed.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import importlib.resources
import os
import pathlib
import re
import shlex
import subprocess
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mitogen
import mitogen.core
import mitogen.parent

from ansible_mitogen_svc.services import exit_watch
from ansible_mitogen_svc.services.starting import starting

#: Packages whose modules travel; boot.py is not one of them, its text runs first.
TARGET_PACKAGES = ("ansible_mitogen_svc.wire", "ansible_mitogen_svc.target")
#: Bytes of a child's output and of its standard error that are kept to explain a failed start.
OUTPUT_KEPT = 16384
#: Bytes that what is looked for in an output may have.
_LONGEST_SIGN = 64

_FIRST_STAGE = """\
import os,zlib
if sys.version_info<(3,8):
 os.write(1,b"SVC-OLD-PYTHON "+sys.version.split()[0].encode()+b"\\n")
 os._exit(126)
n=int(sys.argv[2])
C=b""
while len(C)<n:
 x=os.read(0,n-len(C))
 if not x:
  os._exit(3)
 C+=x
D=zlib.decompressobj()
SECTIONS=(D.decompress(C)+D.unused_data).split(b"\\0")
exec(compile(SECTIONS[1],"<ansible_mitogen_svc.target.boot>","exec"))
"""
# A terminal here may be the become command's own, which nobody else can make raw. Messages must not be among frames.
_ZYGOTE_STAGE = """\
import os,zlib
if os.isatty(0):
 import tty
 tty.setraw(0,0)
 os.dup2(os.open(os.devnull,1),2)
os.write(1,b"SVC-ZYGOTE\\n")
def read(n):
 C=b""
 while len(C)<n:
  x=os.read(0,n-len(C))
  if not x:
   os._exit(3)
  C+=x
 return C
SECTIONS=zlib.decompress(read(int(read(10)))).split(b"\\0")
exec(compile(SECTIONS[1],"<ansible_mitogen_svc.target.boot>","exec"))
"""


def _packed(text: str) -> str:
    return binascii.b2a_base64(zlib.compress(text.encode(), 9), newline=False).decode()


#: No quote, dollar or backslash in it: it passes through any number of shells.
_UNPACK = (
    "import sys;sys.path=[p for p in sys.path if p];import zlib,binascii;"
    "exec(zlib.decompress(binascii.a2b_base64(sys.argv[1])))"
)


class Cache(Protocol):
    """Where something stays from one run to the next; nothing in it can be told from nothing that can be trusted."""

    def get(self, key: str) -> bytes | None:
        """What was put there under this name."""

    def put(self, key: str, record: bytes) -> None:
        """Keep it, if possible."""


def keep_in(cache: Cache | None) -> None:
    """Keep what every connection sends in a cache of this user's between runs, or no longer."""
    global _cache
    _cache = cache


_cache: Cache | None = None


def _sections() -> list[bytes]:
    """What travels of ours: role, boot text, then name and source of each module."""
    boot = importlib.resources.files("ansible_mitogen_svc.target").joinpath("boot.py")
    sections = [b"agent", boot.read_bytes()]
    for package in TARGET_PACKAGES:
        for file in sorted(importlib.resources.files(package).iterdir(), key=lambda file: file.name):
            module = file.name.removesuffix(".py")
            if module not in ("__init__", "boot") and file.name.endswith(".py"):
                sections += [f"{package}.{module}".encode(), file.read_bytes()]
    return sections


@functools.cache
def _compressed_sections() -> bytes:
    """All that travels but the settings, compressed.

    Taking comments and docstrings out of mitogen's core and compressing cost a run 40 ms. Reading the same again, to
    tell that it is the same, costs 2.
    """
    sections = _sections()
    digest = hashlib.sha256(b"\0".join([repr(mitogen.__version__).encode(), *sections]))
    digest.update(pathlib.Path(mitogen.core.__file__).read_bytes())
    key = f"start-{digest.hexdigest()}"
    known = _cache.get(key) if _cache is not None else None
    if known is None:
        sections += [b"mitogen.core", mitogen.parent._get_core_source().encode()]
        # Level 9 would save one byte in a hundred and take five times as long.
        known = zlib.compress(b"\0".join(sections) + b"\0", 6)
        if _cache is not None:
            _cache.put(key, known)
    return known


def remote_command(interpreters: Sequence[str], preamble_size: str, *, exact: bool) -> str:
    """Shell line that starts the first stage.

    :param interpreters: names or paths to look for, best first; with `exact` the only one, a piece of shell as it
        stands in ``ansible_python_interpreter``, which is run without looking.
    :param preamble_size: bytes the first stage shall read; a placeholder may stand for the number.
    """
    arguments = f'-c "{_UNPACK}" {_packed(_FIRST_STAGE)} {preamble_size}'
    if exact:
        script = f"exec {interpreters[0]} {arguments}"
    else:
        names = " ".join(shlex.quote(name) for name in interpreters)
        script = (
            f"for p in {names};do if command -v $p >/dev/null 2>&1;then exec $p {arguments};fi;done;"
            "echo SVC-NO-PYTHON;exit 127"
        )
    return f"/bin/sh -c {shlex.quote(script)}"


def zygote_arguments() -> str:
    """What follows the interpreter in the command of a zygote; safe within single and double quotes."""
    return f"-c {shlex.quote(_UNPACK)} {_packed(_ZYGOTE_STAGE)}"


@dataclass(frozen=True)
class ChildCommand:
    """What to start on the controller so that a child comes up on a target.

    Attributes:
        argv: the program and its arguments; an argument equal to `PASSWORD_FD` stands for a descriptor (sshpass -d).
        environment: whole environment of the program, or None for ours.
        password: written to the descriptor that `PASSWORD_FD` stands for, followed by a newline.
        cwd: working directory or None.
    """

    argv: tuple[bytes, ...]
    environment: Mapping[str, str] | None = None
    password: bytes | None = field(default=None, repr=False)
    cwd: str | None = None


PASSWORD_FD = b"-d@svc-password@"


@dataclass
class StartFailure(Exception):
    """A child did not come up.

    Attributes:
        returncode: exit status of the program on the controller (negative: signal); None when it was still running.
        stdout, stderr: the last output, undecoded.
        reason: ``exit``, ``timeout``, ``no-python``, ``old-python``, ``cannot-start``, ``agent`` (it came up without
            a zygote) or ``pool`` (the Session could not try).
        seconds: how long it was waited for.
    """

    returncode: int | None
    stdout: bytes
    stderr: bytes
    reason: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.reason} (rc={self.returncode})"


class _BootProtocol(mitogen.parent.BootstrapProtocol):  # type: ignore[misc]
    """Reads the child's first lines; sends the preamble without being asked."""

    def _on_ready(self, line: bytes, match: object) -> bool:
        self.stream.conn._complete_connection()
        return False

    def _on_refused(self, line: bytes, match: re.Match[bytes]) -> None:
        connection = self.stream.conn
        connection.refusal = "old-python" if b"OLD" in match.group(0) else "no-python"
        connection.output += line + b"\n"

    def on_unrecognized_line_received(self, line: bytes) -> None:
        connection = self.stream.conn
        connection.output = (connection.output + line + b"\n")[-OUTPUT_KEPT:]

    on_unrecognized_partial_line_received = None

    def on_partial_line_received(self, line: bytes) -> None:
        # Prompts are nobody's business here: ssh asks on its terminal or through askpass, never on this stream.
        # A line without an end would be copied whole with every piece that comes.
        if len(line) > OUTPUT_KEPT:
            connection = self.stream.conn
            connection.output = (connection.output + line[:-_LONGEST_SIGN])[-OUTPUT_KEPT:]
            self._trailer = line[-_LONGEST_SIGN:]

    def unfinished(self) -> bytes:
        """What was printed since the last end of a line."""
        return bytes(self._trailer)

    PATTERNS = [
        (re.compile(b"MITO002"), _on_ready),
        (re.compile(b"SVC-(NO|OLD)-PYTHON"), _on_refused),
    ]


class _ErrorProtocol(mitogen.core.Protocol):  # type: ignore[misc]
    def on_receive(self, broker: mitogen.core.Broker, data: bytes) -> None:
        connection = self.stream.conn
        connection.errors = (connection.errors + bytes(data))[-OUTPUT_KEPT:]


class _Options(mitogen.parent.Options):  # type: ignore[misc]
    def __init__(self, compose: Callable[[int], ChildCommand], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.compose = compose


class ChildConnection(mitogen.parent.Connection):  # type: ignore[misc]
    """mitogen connection over a command that somebody else composed.

    `Options.compose` is called with the size of the preamble in bytes and returns the `ChildCommand`.
    """

    options_class = _Options
    stream_protocol_class = _BootProtocol
    diag_protocol_class = _ErrorProtocol
    child_is_immediate_subprocess = False
    name_prefix = "svc"
    eof_error_msg = ""

    def __init__(self, options: _Options, router: mitogen.parent.Router) -> None:
        super().__init__(options, router)
        self.output = b""
        self.errors = b""
        self.refusal: str | None = None

    def get_preamble(self) -> bytes:
        settings = dict(self.get_econtext_config(), unidirectional=True)
        # Plain behind the compressed part, which is the same for every connection.
        return _compressed_sections() + repr(settings).encode()

    def _async_connect(self) -> None:
        # Until the program's pipes belong to streams, which a forked worker knows to close.
        with starting:
            super()._async_connect()

    def start_child(self) -> mitogen.parent.PopenProcess:
        preamble = self.get_preamble()
        command = self.options.compose(len(preamble))
        argv = list(command.argv)
        pass_fds: tuple[int, ...] = ()
        password_fd: int | None = None
        if PASSWORD_FD in argv:
            read_end, password_fd = os.pipe()
            argv[argv.index(PASSWORD_FD)] = b"-d%d" % read_end
            pass_fds = (read_end,)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=command.environment,
                cwd=command.cwd,
                pass_fds=pass_fds,
                start_new_session=True,
                bufsize=0,
            )
            if password_fd is not None:
                os.write(password_fd, (command.password or b"") + b"\n")
        finally:
            for descriptor in (*pass_fds, *(() if password_fd is None else (password_fd,))):
                os.close(descriptor)
        self._preamble = preamble
        return mitogen.parent.PopenProcess(process, process.stdin, process.stdout, process.stderr)

    def _setup_stdio_stream(self) -> mitogen.core.Stream:
        stream = super()._setup_stdio_stream()
        stream.protocol._writer.write(self._preamble)
        del self._preamble
        return stream

    def on_stdio_disconnect(self) -> None:
        # A ControlMaster that ssh left in the background keeps standard error open, perhaps for ever: once the output
        # has ended give the rest of the error messages an instant, then go on without.
        stderr = self.stderr_stream
        if stderr is None or stderr.receive_side.closed:
            self._on_streams_disconnected()
        else:
            self._router.broker.timers.schedule(mitogen.core.now() + 0.1, self._give_up_on_errors)

    def _give_up_on_errors(self) -> None:
        if not self.stderr_stream.receive_side.closed:
            self.stderr_stream.on_disconnect(self._router.broker)

    def _on_streams_disconnected(self) -> None:
        if self._timer.active:
            # The exit status is part of the explanation; the program is at most about to exit.
            try:
                self.proc.proc.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                pass
            # mitogen would decode all that was printed as UTF-8 first, and where it is not nobody would be told.
            self._timer.cancel()
            self._fail_connection(mitogen.parent.EofError(self.eof_error_msg))
        super()._on_streams_disconnected()
        if self._reaper is not None and self.proc.poll() is None:
            exit_watch.watch(self._router.broker, self.proc.pid, self._reaper.reap)

    def failure(self, error: BaseException) -> StartFailure:
        """What went wrong, after `connect()` raised `error`."""
        returncode = self.proc.proc.poll() if self.proc else None
        if self.refusal:
            reason = self.refusal
        elif isinstance(error, mitogen.core.TimeoutError):
            reason = "timeout"
        elif self.proc is None:
            return StartFailure(None, b"", str(error).encode(), "cannot-start")
        else:
            reason = "exit"
        protocol = getattr(self.stdio_stream, "protocol", None)
        output = self.output + (protocol.unfinished() if isinstance(protocol, _BootProtocol) else b"")
        return StartFailure(returncode, output, self.errors, reason, self.options.connect_timeout)


def connect(
    router: mitogen.parent.Router, name: str, compose: Callable[[int], ChildCommand], timeout: float
) -> tuple[mitogen.parent.Context, ChildConnection]:
    """Start a child and wait until its agent's router runs.

    :param timeout: seconds until the attempt is abandoned and the program killed.
    :raises StartFailure: it did not come up.
    """
    context_id = router.allocate_id()
    context = router.context_class(router, context_id)
    context.name = name
    connection = ChildConnection(
        _Options(
            compose,
            name=name,
            remote_name="ansible_mitogen_svc",
            max_message_size=router.max_message_size,
            connect_timeout=timeout,
        ),
        router,
    )
    try:
        connection.connect(context)
    except Exception as error:
        raise connection.failure(error) from None
    return context, connection
