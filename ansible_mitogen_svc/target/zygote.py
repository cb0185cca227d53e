# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The zygote: one single-threaded process per identity on a target, which takes jobs from the agent and answers them.

Started by boot.py, in a fork of the bootstrap process before any thread exists or in a fresh Python. The byte formats
and operations are those of docs/protocol.md.

Theory of operation
1. Processes: the zygote (this file) reads frames and imports nothing of ansible's; a *nursery* (nursery.py) holds the
   base set imported and forks; *children* (child.py) run one job each; *builders* (builder.py) compile new manifests.
   The zygote stays small and new, so a nursery for another base set, or after packages changed, costs one fork.
2. Frames are handled in the order they come. A `run` waits in a queue until its manifest is in the catalogue, a
   nursery for it is ready and the number of running jobs allows; later jobs may overtake it. `pump` tries the
   queue whenever one of those changes.
3. A `run` is handed to its child as it came; the zygote reads the header only, and neither parameters nor secrets.
   `execute` forks from the zygote itself, which has little to copy.
4. A job's reply is sent when its child says it is done, before the child has exited (slots.py tells what else ends a
   job).
5. A job whose process died before it began is put back at the head of the queue (job_not_begun), a few times.
6. The end of the input, `retire`, a broken output or a frame above the limit end the zygote: sockets to nurseries
   close, each cuts off its jobs (SIGTERM, SIGKILL half a second later), and so does the zygote with its own children.
"""

from __future__ import annotations

import gc
import os
import pwd
import signal
import sys
import time
from collections import deque

from ansible_mitogen_svc.target import child, nurseries, nursery, process, steps
from ansible_mitogen_svc.target.account import Account
from ansible_mitogen_svc.target.catalogue import Catalogue
from ansible_mitogen_svc.target.execution import Executions
from ansible_mitogen_svc.target.slots import JobZips, Slot
from ansible_mitogen_svc.target.store import Store
from ansible_mitogen_svc.target.stream import EventLoop, FrameOutput, StreamBroken
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from ansible_mitogen_svc.target.bundle import Bundle

LEAST_CHILDREN = 4
CHILD_BYTES = 16 << 20
"""A job more is started only while this much memory per job is available."""


ATTEMPTS = 4
"""Processes a job is given to, when one after another dies before it begins."""


class Job:
    """A `run` or `execute` that was not answered yet."""

    __slots__ = ('attempts', 'call_id', 'header', 'payload', 'started')

    def __init__(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self.call_id = call_id
        self.header = header
        self.payload = payload
        self.started = 0.0
        self.attempts = 0


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
        self._interpreter = nurseries.interpreter()
        self._account = Account()
        self._directory = process.leave_directory()
        sys.path[:] = [path for path in sys.path if path not in ('', '.')]
        self.store = Store.open(store_root)
        self._zips = JobZips(self.store)
        self._nurseries = nurseries.Nurseries(self._zips, self._directory, self)
        self._executions = Executions(self._directory, self)
        self._catalogue = Catalogue(self.store, self._nurseries, self)
        self._last = self.store.last()
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._done = 0
        self._given_again = 0
        self._questions: dict[int, Callable[[dict[str, bytes]], None]] = {}
        self._next_question = frames.QUESTION
        self._pumping = self._came_back = False
        self._directories = steps.TemporaryDirectories()

    def statistics(self) -> dict[str, int]:
        """Jobs running, waiting, done and given to a second process, and the figures of catalogue and nurseries."""
        return {'jobs': len(self._running), 'waiting': len(self._waiting), 'done': self._done,
                'given_again': self._given_again, **self._catalogue.statistics(), **self._nurseries.statistics()}

    def serve(self) -> NoReturn:
        """Say hello, preload what the last zygote of this store preloaded, and work until the input ends."""
        wakeup, _ = process.watch_children()
        self.watch(wakeup, lambda: self._reap(wakeup))
        self.watch(self._input, self._read)
        self._output.send(0, self._hello())
        gc.freeze()
        gc.enable()
        if self._last is not None:
            bundle = self._catalogue.recall(self._last)
            if bundle is not None and bundle.covers({}):
                self.base_built(bundle)
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
        data = os.read(self._input, 1 << 18)
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

    def ask(self, digests: list[str], answered: Callable[[dict[str, bytes]], None]) -> None:
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
        self._catalogue.offer(header['manifest'], blobs[0], dict(zip(header['sha256'], blobs[1:])))
        self._reply(call_id, {})

    def _recall(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._catalogue.recall(header['manifest'])
        self._reply(call_id, {})

    def _run(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        changed = self._account.changed() if header.get('anew') else ''
        if changed:
            raise AccountChanged(f'{changed} changed since this zygote was started by a become command')
        self._directories.note(header.get('steps') or ())
        self._waiting.append(Job(call_id, header, payload))
        self.pump()

    def _steps(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._directories.note(header['steps'])
        steps.run_steps(header['steps'], frames.unpack_payload(payload)[1])
        self._reply(call_id, {})

    def _ping(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._reply(call_id, self.statistics())

    def _retire(self, call_id: int, header: dict[str, Any], payload: bytes) -> None:
        self._reply(call_id, {})
        self._end()

    # Jobs

    def pump(self) -> None:
        """Start every waiting job that can start now, and answer those that never will."""
        if self._pumping:
            return
        self._pumping = self._came_back = True
        try:
            while self._came_back:
                self._came_back = False
                self._try_waiting()
        finally:
            self._pumping = False

    def _try_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            job = self._waiting.popleft()
            if len(self._running) >= LEAST_CHILDREN and not self._has_room():
                self._waiting.appendleft(job)
                break
            try:
                started = self._start(job)
            except Exception as error:
                self._reply(job.call_id, {'error': child.describe(error)})
            else:
                if not started:
                    self._waiting.append(job)
        self._catalogue.forget_troubles()
        self._nurseries.trouble.clear()

    def _has_room(self) -> bool:
        available = _available_memory()
        return available is None or len(self._running) < available // CHILD_BYTES

    def _start(self, job: Job) -> bool:
        """Start a job; False when something is still on its way. Raises what makes it impossible."""
        if job.header['op'] == 'execute':
            self._running[id(job)] = job
            job.started = time.monotonic()
            try:
                self._executions.run(job, job.payload)
            except BaseException:
                del self._running[id(job)]
                raise
            return True
        if nurseries.interpreter() != self._interpreter:
            raise InterpreterChanged(f'{sys.executable} was replaced since this zygote started')
        bundle = self._catalogue.find(job.header['manifest'])
        if bundle is None:
            return False
        trouble = self._nurseries.trouble.get(bundle.identity)
        if trouble is not None:
            raise BaseSetFailed(f'{trouble["type"]}: {trouble["message"]}')
        job.started = time.monotonic()
        link = self._nurseries.find(bundle)
        while link is not None and not self._nurseries.run(link, bundle, job, job.payload):
            link = self._nurseries.find(bundle)
        if link is None:
            if not self._nurseries.starting():
                base = self._nurseries.base_for(bundle) or self._catalogue.find(bundle.identity, whole=True)
                if base is not None:
                    self._nurseries.start(base)
            return False
        job.payload = b''
        self._running[id(job)] = job
        # After the job was sent: forking the next child must not delay this one. Many a host gets one job only.
        if self._done or len(self._running) > 1:
            self._nurseries.look_ahead(link, bundle)
        if link.base.identity != self._last:
            self._last = link.base.identity
            self.store.set_last(self._last)
        return True

    def job_ended(self, slot: Slot, status: int | None) -> None:
        """Answer a job whose child answered, exited, or was lost."""
        job = slot.job
        self._running.pop(id(job), None)
        self._done += 1
        elapsed = round(time.monotonic() - job.started, 6)
        if slot.answer is not None and 'rc' in slot.answer:
            self._reply(job.call_id, {'rc': slot.answer['rc'], 'signal': None, 'elapsed': elapsed}, slot.blobs())
        elif slot.answer is not None:
            self._reply(job.call_id, slot.answer)
        elif status is not None:
            rc, number = process.result_of(status)
            self._reply(job.call_id, {'rc': rc, 'signal': number, 'elapsed': elapsed}, slot.blobs())
        else:
            self._reply(job.call_id, _lost(
                f'the process of the job ended without an answer after it had begun, and its nursery (process '
                f'{slot.nursery}), which alone could tell how it ended, has died, too: what the job has done is not '
                'known, so it was not run again'))
        if self._waiting:
            self.pump()

    def job_not_begun(self, slot: Slot, status: int | None) -> None:
        """Give a job to another process: its own died, or was never made, and nothing of the job has happened."""
        job = slot.job
        self._running.pop(id(job), None)
        job.attempts += 1
        if job.attempts < ATTEMPTS:
            self._given_again += 1
            job.payload = slot.read_payload()
            self._waiting.appendleft(job)
            self._came_back = True
        else:
            how = 'with its nursery' if status is None else 'with rc {} (signal {})'.format(*process.result_of(status))
            self._done += 1
            self._reply(job.call_id, _lost(
                f'{job.attempts} processes one after another died before they began the job, the last one {how}'))
        self.pump()

    def base_built(self, bundle: Bundle) -> None:
        """Import a base set ahead of the first job that needs it."""
        try:
            self._nurseries.start(bundle)
        except OSError:
            self.base_ended()  # a job that needs it will be told what is wrong

    def base_ended(self) -> None:
        """A nursery finished starting, or failed to."""
        self._catalogue.base_ended()
        self._nurseries.prepare_spares()
        self.pump()

    # Processes and descriptors

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call `ready` when a descriptor is readable."""
        self._loop.watch(descriptor, ready)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor."""
        self._loop.unwatch(descriptor)

    def _reap(self, wakeup: int) -> None:
        process.drain(wakeup)
        for pid, status in process.exited_children():
            if not self._catalogue.child_exited(pid):
                self._executions.child_exited(pid, status)

    def _end(self) -> NoReturn:
        """Cut everything off and exit; what was answered still goes out while somebody reads it."""
        try:
            self._output.flush_all(1.0)
        except StreamBroken:
            pass
        others = self._nurseries.close()
        nursery.end_groups(self._executions.pids())
        deadline = time.monotonic() + 4 * nursery.GRACE
        left = set(others)
        while left and time.monotonic() < deadline:
            for pid in list(left):
                try:
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        left.discard(pid)
                except ChildProcessError:
                    left.discard(pid)
            if left:
                time.sleep(0.005)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self._zips.close()
        self._directories.remove()
        self.store.close()
        os._exit(0)


class InterpreterChanged(RuntimeError):
    """The interpreter was upgraded; only a new zygote would run what a new login runs."""


class AccountChanged(RuntimeError):
    """Only a new zygote would be what the become command makes now."""


class BaseSetFailed(RuntimeError):
    """Core's base module_utils could not be imported here."""


def _lost(message: str) -> dict[str, Any]:
    return {'error': {'type': 'ChildLost', 'message': message}}


def _available_memory() -> int | None:
    """Return MemAvailable in bytes, where there is such a thing."""
    try:
        with open('/proc/meminfo', 'rb') as file:
            for line in file:
                if line.startswith(b'MemAvailable:'):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


_OPERATIONS: dict[str, Callable[[Zygote, int, dict[str, Any], bytes], None]] = {
    'install': Zygote._install,
    'recall': Zygote._recall,
    'run': Zygote._run,
    'execute': Zygote._run,
    'steps': Zygote._steps,
    'ping': Zygote._ping,
    'retire': Zygote._retire,
}
