# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The process that holds core's base module_utils imported and forks one child per job.

Forked by the zygote, which tells it what to do over a socket; single-threaded, polls that socket and SIGCHLD.

Theory of operation
1. At its start it imports the base set out of the bundle it was forked with and reports the signature (loader.py).
2. `fork` comes with three descriptors: the child's end of a socket, and files for its stdout and stderr. The zygote may
   have written a job into that socket before, or do so much later (the spare child).
3. `hold` brings a bundle: children forked from then on have its code. `release` takes it back.
4. Every child's end is reported with its wait status: the only witness when a child was killed.
5. `end` names the children that have not answered: it terminates their process groups (SIGTERM, SIGKILL half a second
   later) and exits. Processes which left those groups (daemons) live on, and so does whatever an answered job has left
   behind, also when it has not been seen to exit yet. Where the socket ends without `end`, the zygote was killed, and
   who has not exited is taken for one of them.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import select
import signal
import socket
import sys
import time
import types

from ansible_mitogen_svc.target import bundle, child, process
from ansible_mitogen_svc.target.loader import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ansible_mitogen_svc.target.bundle import Bundle
    from ansible_mitogen_svc.target.site_places import SitePlaces

OWN_PACKAGES = ('ansible_mitogen_svc', 'mitogen')

GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL for jobs that are cut off."""

KILLED = 4.0
"""Seconds after which nobody waits any longer for them to end."""


def start_nursery(base: Bundle, root: str, directory: str | None, places: SitePlaces) -> tuple[int, socket.socket]:
    """Fork a nursery; return its pid and the socket to it. `root` is the path of slot 0's zip."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        process.reset_signals()
        os.setsid()
        process.close_all_but([theirs.fileno()])
        process.set_title('svc-nursery')
        places.follow()
        Nursery(theirs, base, root, directory).serve()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(70)


class Nursery:
    """State of a nursery process."""

    def __init__(self, sock: socket.socket, base: Bundle, root: str, directory: str | None) -> None:
        self._wire = process.Wire(sock)
        self._image = Image(root)
        self._base = base
        self._directory = directory
        self._null = os.open(os.devnull, os.O_RDWR)
        self._closing: list[int] = []
        """What a child closes, beside what came with its slot: everything that a new Python would not have open."""
        self._children: dict[int, int] = {}
        """Numbers of the slots in use, by the pid of the child."""

    def serve(self) -> NoReturn:
        """Preload, then obey until the socket ends."""
        gc.disable()  # hardly anything that imports make is garbage
        try:
            _look_like_a_script()
            self._image.install()
            self._image.adopt(self._base)
            sys.path.insert(0, self._image.root)
            signature = self._image.preload()
            sys.path.remove(self._image.root)
            child.find_c_flush()
            _forget_ourselves()
        except BaseException as error:
            self._wire.send({'failed': child.describe(error)})
            raise
        self._wire.send({'ready': signature})
        gc.freeze()
        gc.enable()
        wakeup, writer = process.watch_children()
        self._closing = [self._null, wakeup, writer]
        poll = select.poll()
        poll.register(self._wire.fileno(), select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wakeup:
                    process.drain(wakeup)
                    self._report()
                else:
                    self._obey()

    def _obey(self) -> None:
        try:
            messages = self._wire.receive()
        except (EOFError, OSError):
            self._end()
        for message, descriptors in messages:
            if 'end' in message:
                self._end(message['end'])
            elif 'fork' in message:
                self._fork(message['fork'], descriptors)
            elif 'hold' in message:
                self._hold(message['hold'], descriptors[0])
            else:
                self._image.release(message['release'])
            for descriptor in descriptors:
                os.close(descriptor)

    def _hold(self, identity: str, descriptor: int) -> None:
        held = bundle.open_bundle(identity, process.read_whole(descriptor))
        if held is not None and self._image.held(identity) is None:
            self._image.hold(held)
            self._image.warm(held)
            gc.freeze()

    def _fork(self, slot: int, descriptors: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({'exit': [slot, None], 'reason': child.describe(error)})
            return
        if pid:
            self._children[pid] = slot
            return
        try:
            sock = socket.socket(fileno=descriptors[0])
            closing = [self._wire.socket.detach(), *descriptors[1:], *self._closing]
            child.become_child(self._null, descriptors[1], descriptors[2], closing)
            child.run_child(sock, self._image, self._directory)
        finally:
            os._exit(70)

    def _report(self) -> None:
        for pid, status in process.exited_children():
            slot = self._children.pop(pid, None)
            if slot is not None:
                self._tell({'exit': [slot, status]})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._wire.send(message)
        except OSError:
            pass  # the zygote is gone; its last word may lie in the socket still, and names who is to end

    def _end(self, unanswered: list[int] | None = None) -> NoReturn:
        for pid, _ in process.exited_children():
            self._children.pop(pid, None)
        end_groups([pid for pid, slot in self._children.items() if unanswered is None or slot in unanswered])
        os._exit(0)


def is_report(message: dict[str, Any]) -> bool:
    """Say whether a message is one that a nursery sends."""
    report = message.get('exit')
    if isinstance(report, list) and len(report) == 2:
        return isinstance(report[0], int) and isinstance(report[1], (int, type(None)))
    if isinstance(message.get('ready'), dict):
        return True
    failed = message.get('failed')
    return isinstance(failed, dict) and {'type', 'message'} <= set(failed)


def end_groups(leaders: list[int]) -> None:
    """Terminate process groups; those with a process that is still there after GRACE are killed. Return when all ended.

    On a busy host even a killed process takes a while to end, and whoever has us end wants none to be left.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _signal_groups(leaders, signal.SIGTERM)
    left = _wait_for_groups(leaders, GRACE)
    _signal_groups(left, signal.SIGKILL)
    _wait_for_groups(left, KILLED)


def _wait_for_groups(leaders: list[int], seconds: float) -> list[int]:
    """Wait until the groups have ended; return the leaders of those that have not after that time."""
    deadline = time.monotonic() + seconds
    left = leaders
    while left and time.monotonic() < deadline:
        process.exited_children()
        # A leader that was waited for keeps its number only as long as its group has members.
        left = _signal_groups(left, 0)
        if left:
            time.sleep(0.01)
    return left


def _signal_groups(leaders: list[int], number: int) -> list[int]:
    """Send a signal to process groups; return the leaders of those that exist."""
    found = []
    for pid in leaders:
        try:
            os.killpg(pid, number)
            found.append(pid)
        except OSError:
            pass
    return found


def _forget_ourselves() -> None:
    """Let modules see the modules and finders of a fresh Python, not ours. In a child it would cost each job 0.5 ms."""
    own = sys.modules.get('ansible_mitogen_svc.target.zygote')
    finder = getattr(getattr(own, '__spec__', None), 'loader', None)
    if finder in sys.meta_path:
        sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name.partition('.')[0] in OWN_PACKAGES]:
        del sys.modules[name]


def _let_modules_lead() -> None:
    """Let a module make a session or a process group of its own once, as it can under core.

    There a shell leads both. Here the job's process does, and the system refuses to give it what it has.
    """
    setsid, setpgid = os.setsid, os.setpgid
    made: list[str] = []

    def is_given(what: str) -> bool:
        if os.getsid(0) != os.getpid() or 'session' in made or (what == 'session' and made):
            return False  # a process of the module's own, or what is refused under core as well
        made.append(what)
        return True

    def make_session() -> None:
        if not is_given('session'):
            setsid()

    def join_group(pid: int, group: int, /) -> None:
        if not {pid, group} <= {0, os.getpid()} or not is_given('group'):
            setpgid(pid, group)

    os.setsid, os.setpgid, os.setpgrp = make_session, join_group, lambda: join_group(0, 0)


def _look_like_a_script() -> None:
    """Give this process what a Python has which reads core's wrapper from its standard input."""
    importlib.invalidate_caches()
    _let_modules_lead()
    main: Any = types.ModuleType('__main__')
    main.__builtins__ = __builtins__
    main._ANSIBALLZ_WRAPPER = True
    sys.modules['__main__'] = main
    sys.argv[:] = ['']
    sys.path[:] = [path for path in sys.path if path not in ('', '.')]
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    for name, descriptor, mode in (('stdin', 0, 'r'), ('stdout', 1, 'w'), ('stderr', 2, 'w')):
        stream = _standard_stream(getattr(sys, f'__{name}__'), name, descriptor, mode)
        setattr(sys, name, stream)
        setattr(sys, f'__{name}__', stream)


def _standard_stream(old: Any, name: str, descriptor: int, mode: str) -> io.TextIOWrapper:
    """Return a stream as Python makes it at its start on a descriptor that is not a terminal."""
    unbuffered = mode == 'w' and getattr(old, 'write_through', False)
    buffer: Any = open(descriptor, mode + 'b', buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    (buffer if unbuffered else buffer.raw).name = f'<{name}>'
    # An adopting process may have closed a stream; then Python's own choice is not known.
    encoding, errors = getattr(old, 'encoding', 'utf-8'), getattr(old, 'errors', 'surrogateescape')
    by_line = name == 'stderr' and not unbuffered and sys.version_info >= (3, 9)
    stream = io.TextIOWrapper(buffer, encoding, errors, newline='\n', line_buffering=by_line, write_through=unbuffered)
    stream.mode = mode  # type: ignore[misc]
    return stream
