# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The jobs of a zygote: from their arrival to their answer.

Used by the zygote's single thread, which gives it what frames ask for and what the kernel says of children.

Theory of operation
1. A job waits in a queue until its manifest is in the catalogue, a nursery for it is ready, and memory and descriptors
   suffice for one more; later jobs may overtake it. `pump` tries the queue whenever one of those changes.
2. A job is handed to its process as it came; only its header is read here, and neither parameters nor secrets.
   `execute` forks from the zygote itself, which has little to copy.
3. A job is answered when its child says it is done, before the child has exited (slots.py tells what else ends a job).
4. A job whose process died before it began is put back at the head of the queue (job_not_begun), a few times.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque

from ansible_mitogen_svc.target import child, nurseries, nursery, process
from ansible_mitogen_svc.target.account import signature_of
from ansible_mitogen_svc.target.catalogue import Catalogue
from ansible_mitogen_svc.target.execution import Executions
from ansible_mitogen_svc.target.slots import JobProcess, JobZips, Slot
from ansible_mitogen_svc.target.steps import TemporaryDirectories
from ansible_mitogen_svc.wire.frames import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ansible_mitogen_svc.target.bundle import Bundle
    from ansible_mitogen_svc.target.pairs import Pair
    from ansible_mitogen_svc.target.store import Store
    from ansible_mitogen_svc.target.stream import EventLoop

    Reply = Callable[..., None]
    """Takes a call id, the header of the answer and, where there are any, blobs."""
    Ask = Callable[[list[str], Callable[[dict[str, bytes]], None]], None]

LEAST_CHILDREN = 4
CHILD_BYTES = 16 << 20
"""A job more is started only while this much memory per job is available."""
DESCRIPTORS = 4
"""What the zygote has open for a job: its socket, its payload, its output (or the ends of two pipes)."""
OTHER_DESCRIPTORS = 64
"""What it leaves free for nurseries, builders and files."""


ATTEMPTS = 4
"""Processes a job is given to, when one after another dies before it begins."""


READ_ONCE = ('/etc/ssl/openssl.cnf', '/etc/pki/tls/openssl.cnf', '/etc/crypto-policies/back-ends/opensslcnf.config',
             '/etc/nsswitch.conf')
"""What libraries read once in a process, and have read in the zygote itself, of which all others are forks."""


class Job:
    """A `run` or `execute` that was not answered yet."""

    __slots__ = ('attempts', 'call_id', 'header', 'pair', 'payload', 'started')

    def __init__(self, call_id: int, header: dict[str, Any], payload: bytes, pair: Pair | None = None) -> None:
        self.call_id = call_id
        self.header = header
        self.payload = payload
        self.pair = pair
        self.started = 0.0
        self.attempts = 0


class Jobs:
    """See the module. `reply` sends an answer; `ask` has the agent asked for files."""

    def __init__(self, store: Store, directory: str | None, loop: EventLoop, reply: Reply, ask: Ask) -> None:
        self._store = store
        self._reply = reply
        self.ask = ask
        self.watch = loop.watch
        self.unwatch = loop.unwatch
        self.later = loop.later
        self._interpreter = nurseries.interpreter()
        self._read_once = {path: signature_of(path) for path in READ_ONCE}
        self._zips = JobZips(store)
        self._nurseries = nurseries.Nurseries(self._zips, directory, self)
        self._executions = Executions(directory, self)
        self.directories = TemporaryDirectories()
        self.catalogue = Catalogue(store, self._nurseries, self)
        self._last = store.last()
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._done = 0
        self._given_again = 0
        self._pumping = self._came_back = False

    def statistics(self) -> dict[str, int]:
        """Jobs running, waiting, done and given to a second process, and the figures of catalogue and nurseries."""
        return {'jobs': len(self._running), 'waiting': len(self._waiting), 'done': self._done,
                'given_again': self._given_again, **self.catalogue.statistics(), **self._nurseries.statistics()}

    def preload(self) -> None:
        """Import what the last zygote of this store had imported, if that is known."""
        if self._last is not None:
            bundle = self.catalogue.recall(self._last)
            if bundle is not None and bundle.covers({}):
                self.base_built(bundle)

    def add(self, call_id: int, header: dict[str, Any], payload: bytes, pair: Pair | None = None) -> None:
        """Run or execute what a frame asks for, as soon as possible."""
        self._waiting.append(Job(call_id, header, payload, pair))
        self.pump()

    def pump(self) -> None:
        """Start every waiting job that can start now, and answer those that never will."""
        if self._pumping:
            self._came_back = True  # what came of it concerns jobs that had their turn already, too
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
                self._answer(job, {'error': child.describe(error)})
            else:
                if not started:
                    self._waiting.append(job)
        self.catalogue.forget_troubles()
        self._nurseries.trouble.clear()

    def _has_room(self) -> bool:
        descriptors = os.sysconf('SC_OPEN_MAX')  # -1 without a limit
        if 0 <= descriptors < (len(self._running) + 1) * DESCRIPTORS + OTHER_DESCRIPTORS:
            return False
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
            self.directories.expect(job, job.header.get('steps'))
            return True
        self.check_interpreter(job.header)
        bundle = self.catalogue.find(job.header['manifest'])
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
                base = self._nurseries.base_for(bundle) or self.catalogue.find(bundle.identity, whole=True)
                if base is not None:
                    self._nurseries.start(base)
            return False
        job.payload = b''
        self._running[id(job)] = job
        self.directories.expect(job, job.header.get('steps'))
        # After the job was sent: forking the next child must not delay this one. Many a host gets one job only.
        if self._done or len(self._running) > 1:
            self._nurseries.look_ahead(link, bundle)
        if link.base.identity != self._last:
            self._last = link.base.identity
            self._store.set_last(self._last)
        return True

    def _answer(self, job: Job, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Answer a job, or go on with the second of its pair."""
        pair = job.pair
        if pair is not None and pair.goes_on(header, blobs):
            self._waiting.append(Job(job.call_id, pair.header, pair.second, pair))
            self._came_back = True
        else:
            header, blobs = pair.joined(header, blobs) if pair is not None else (header, blobs)
            try:
                self._reply(job.call_id, header, blobs)
            except FrameError as error:
                self._reply(job.call_id, _unsendable(error))

    def _answer_with_output(self, job: Job, slot: JobProcess, rc: int, number: int | None) -> None:
        header: dict[str, Any] = {'rc': rc, 'signal': number, 'elapsed': round(time.monotonic() - job.started, 6)}
        try:
            blobs = slot.blobs()
        except FrameError as error:
            header, blobs = _unsendable(error), []
        self._answer(job, header, blobs)

    def check_interpreter(self, header: Mapping[str, Any]) -> None:
        """Raise InterpreterChanged when a new zygote would not run what this one runs.

        `header`: of the job. One that another zygote has refused already (`again`) takes what libraries have read when
        this one began, a moment ago: a file that changes all the time would make its host unreachable.
        """
        if nurseries.interpreter() != self._interpreter:
            raise InterpreterChanged(f'{sys.executable} was replaced since this zygote started')
        if header.get('again'):
            return
        for path, before in self._read_once.items():
            # Whoever is in the midst of something goes on here, as a process of core's would that has begun.
            if signature_of(path) != before and not (self._running or self._waiting or self.directories.in_use()):
                raise InterpreterChanged(f'{path} was changed since this zygote started')

    def job_ended(self, slot: JobProcess, status: int | None) -> None:
        """Answer a job whose child answered, exited, or was lost."""
        job = slot.job
        self._running.pop(id(job), None)
        self.directories.settle(job, slot.answer)
        self._done += 1
        if slot.answer is not None and 'rc' in slot.answer:
            self._answer_with_output(job, slot, slot.answer['rc'], None)
        elif slot.answer is not None:
            self._answer(job, slot.answer)
        elif status is not None:
            self._answer_with_output(job, slot, *process.result_of(status))
        else:
            self._answer(job, _lost(
                f'the process of the job ended without an answer after it had begun, and its nursery (process '
                f'{slot.nursery}), which alone could tell how it ended, has died, too: what the job has done is not '
                'known, so it was not run again'))
        if self._waiting:
            self.pump()

    def job_not_begun(self, slot: Slot, status: int | None) -> None:
        """Give a job to another process: its own died, or was never made, and nothing of the job has happened."""
        job = slot.job
        self._running.pop(id(job), None)
        self.directories.settle(job, {})
        job.attempts += 1
        if job.attempts < ATTEMPTS:
            self._given_again += 1
            job.payload = slot.read_payload()
            self._waiting.appendleft(job)
            self._came_back = True
        else:
            how = 'with its nursery' if status is None else 'with rc {} (signal {})'.format(*process.result_of(status))
            self._done += 1
            self._answer(job, _lost(
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
        self.catalogue.base_ended()
        self._nurseries.prepare_spares()
        self.pump()

    def child_exited(self, pid: int, status: int) -> None:
        """Take what the kernel says of a builder or of a command's process."""
        if not self.catalogue.child_exited(pid):
            self._executions.child_exited(pid, status)

    def close(self) -> None:
        """Cut everything off: the nurseries end their jobs and themselves, and commands are ended here."""
        others = self._nurseries.close()
        nursery.end_groups(self._executions.pids())
        self._executions.close()
        process.collect(others, 4 * nursery.GRACE + nursery.KILLED)
        self._zips.close()


class InterpreterChanged(RuntimeError):
    """The interpreter was upgraded; only a new zygote would run what a new login runs."""


class BaseSetFailed(RuntimeError):
    """Core's base module_utils could not be imported here."""


def _lost(message: str) -> dict[str, Any]:
    return {'error': {'type': 'ChildLost', 'message': message}}


def _unsendable(error: FrameError) -> dict[str, Any]:
    return _lost(f'the job has ended, but its output cannot be sent: {error}')


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
