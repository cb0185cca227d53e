# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The zygote: one single-threaded process per identity on a target, which takes jobs from the agent and answers them.

Started by boot.py, in a fork of the bootstrap process before any thread exists or in a fresh Python. The byte formats
and operations are those of docs/protocol.md.

Theory of operation
1. Processes: the zygote (this file) reads frames and imports nothing of ansible's; a *nursery* (nursery.py) holds the
   base set imported and forks; *children* (child.py) run one job each; *builders* (builder.py) compile new manifests.
   The zygote stays small and new, so a nursery for another base set, or after packages changed, costs one fork.
2. Frames are handled in the order they come; those that ask for a job are handed to jobs.py, which answers them later.
3. The end of the input, `retire`, a broken output or a frame above the limit end the zygote: sockets to nurseries
   close, each cuts off its jobs (SIGTERM, SIGKILL half a second later), and so does the zygote with its own children.
"""

from __future__ import annotations

import gc
import os
import pwd
import signal
import sys

from ansible_mitogen_svc.target import child, jobs, process, steps
from ansible_mitogen_svc.target.account import Account
from ansible_mitogen_svc.target.pairs import Pair
from ansible_mitogen_svc.target.store import Store
from ansible_mitogen_svc.target.stream import EventLoop, FrameOutput, StreamBroken
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn


def main(input_fd: int, output_fd: int, store_root: str | None) -> NoReturn:
    """Be a zygote on two descriptors (they may be the same, and may be 0 and 1) until the input ends.

    `store_root` None: use the effective user's own store if it is safe, else a temporary one.
    """
    try:
        input_fd, output_fd = process.free_standard_descriptors(input_fd, output_fd)
        Zygote(input_fd, output_fd, store_root).serve()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(70)


class Zygote:
    """State of the zygote process."""

    def __init__(self, input_fd: int, output_fd: int, store_root: str | None) -> None:
        process.set_title('svc-zygote')
        self._input = input_fd
        self._parser = frames.FrameParser()
        self._loop = EventLoop()
        self._output = FrameOutput(output_fd)
        self._account = Account()
        directory = process.leave_directory()
        sys.path[:] = [path for path in sys.path if path not in ('', '.')]
        self.store = Store.open(store_root)
        self._jobs = jobs.Jobs(self.store, directory, self._loop, self._reply, self._ask)
        self._questions: dict[int, Callable[[dict[str, bytes]], None]] = {}
        self._next_question = frames.QUESTION
        self._files: Any = None

    def serve(self) -> NoReturn:
        """Say hello, preload what the last zygote of this store preloaded, and work until the input ends."""
        wakeup, _ = process.watch_children()
        # A terminal that is hung up is the end of the input, after which there is something to remove.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._loop.watch(wakeup, lambda: self._reap(wakeup))
        self._loop.watch(self._input, self._read)
        self._output.send(0, self._hello())
        gc.freeze()
        gc.enable()
        self._jobs.preload()
        try:
            while True:
                self._loop.turn(self._output)
        except StreamBroken:
            self._end()

    def _hello(self) -> dict[str, Any]:
        try:
            entry = pwd.getpwuid(os.geteuid())
            user, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell or '/bin/sh'
        except KeyError:
            user, home, shell = str(os.geteuid()), os.environ.get('HOME', '/'), '/bin/sh'
        return {'op': 'hello', 'protocol': frames.PROTOCOL, 'pid': os.getpid(), 'uid': os.geteuid(), 'user': user,
                'home': home, 'shell': shell, 'python': list(sys.version_info[:3]), 'executable': sys.executable,
                'manifests': self.store.manifests(), 'store': None if self.store.ephemeral else self.store.root}

    # Frames

    def _read(self) -> None:
        try:
            data = os.read(self._input, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b''  # as some systems tell of a terminal that was hung up
        if not data:
            self._end()
        try:
            for call_id, payload in self._parser.feed(data):
                self._handle(call_id, payload)
        except frames.FrameError as error:
            self._output.send(0, {'error': child.describe(error)})
            self._end()

    def _handle(self, call_id: int, payload: bytes) -> None:
        if call_id >= frames.QUESTION:
            self._answered(call_id, payload)
            return
        try:
            header = frames.unpack_header(payload)
            operation = _OPERATIONS.get(header.get('op', ''))
            if operation is None:
                raise ValueError(f'unknown operation {header.get("op")!r}')
            operation(self, call_id, header, payload)
        except steps.StepFailed as failure:
            self._reply(call_id, failure.reply)
        except Exception as error:
            self._reply(call_id, {'error': child.describe(error)})

    def _reply(self, call_id: int, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        if call_id:
            self._output.send(call_id, header, blobs)

    def _ask(self, digests: list[str], answered: Callable[[dict[str, bytes]], None]) -> None:
        """Ask the agent for files by sha256; they are verified by whoever uses them."""
        number = self._next_question
        self._next_question = frames.QUESTION | (number + 1) & 0x7fffffff
        self._questions[number] = answered
        self._output.send(number, {'op': 'fetch', 'sha256': digests})

    def _answered(self, number: int, payload: bytes) -> None:
        answered = self._questions.pop(number, None)
        if answered is not None:
            header, blobs = frames.unpack_payload(payload)
            answered(dict(zip(header.get('sha256') or (), blobs)))

    # Operations

    def _install(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        blobs = frames.unpack_payload(payload)[1]
        self._jobs.catalogue.offer(header['manifest'], blobs[0], dict(zip(header['sha256'], blobs[1:])))
        self._reply(call_id, {})

    def _recall(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._jobs.catalogue.recall(header['manifest'])
        self._reply(call_id, {})

    def _run(self, call_id: int, header: dict[str, Any], payload: bytes, pair: Pair | None = None) -> None:
        self._check_account(header)
        self._jobs.add(call_id, header, payload, pair)

    def _check_account(self, header: dict[str, Any]) -> None:
        changed = self._account.changed() if header.get('anew') else ''
        if changed:
            raise AccountChanged(f'{changed} changed since this zygote was started by a become command')

    def _pair(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        first, second = frames.unpack_payload(payload)[1]
        self._run(call_id, frames.unpack_header(first), first, Pair(header['when'], second))

    def _steps(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._check_account(header)
        if header.get('anew'):
            # They are for a job that could not run here: better now than when there are files already.
            self._jobs.check_interpreter(header)
        steps.run_steps(header['steps'], frames.unpack_payload(payload)[1], self._jobs.directories.note)
        self._reply(call_id, {})

    def _file(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        if self._files is None:
            # Not before one comes: what is imported here is in all children.
            from ansible_mitogen_svc.target import files

            self._files = files.Transfers(self._reply, files.Transfer)
        self._files.handle(call_id, header, frames.unpack_payload(payload)[1])

    def _ping(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._reply(call_id, self._jobs.statistics())

    def _retire(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._reply(call_id, {})
        self._end()

    # Processes

    def _reap(self, wakeup: int) -> None:
        process.drain(wakeup)
        for pid, status in process.exited_children():
            self._jobs.child_exited(pid, status)

    def _end(self) -> NoReturn:
        """Cut everything off and exit; what was answered still goes out while somebody reads it."""
        try:
            self._output.flush_all(1.0)
        except StreamBroken:
            pass
        self._jobs.close()
        if self._files is not None:
            self._files.close()
        self._jobs.directories.remove()
        self.store.close()
        os._exit(0)


class AccountChanged(RuntimeError):
    """Only a new zygote would be what the become command makes now."""


_OPERATIONS: dict[str, Callable[[Zygote, int, dict[str, Any], bytes], None]] = {
    'install': Zygote._install,
    'recall': Zygote._recall,
    'run': Zygote._run,
    'pair': Zygote._pair,
    'execute': Zygote._run,
    'steps': Zygote._steps,
    'ping': Zygote._ping,
    'retire': Zygote._retire,
    **dict.fromkeys(('receive', 'part', 'complete', 'discard'), Zygote._file),
}
