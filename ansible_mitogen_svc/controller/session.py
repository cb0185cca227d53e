# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The Session: what one ansible-playbook run shares, and how task workers reach it.

`Session` lives in the ansible-playbook process, `WorkerSession` in a forked worker; both offer what `TaskSession`
names, and a task worker gets the right one from `session_lifecycle.current()`.

Theory of operation
1. The Session starts on first use: a mitogen Broker and Router, a unix listener in a private directory, and a Pool with
   our services. It stays over all plays of the run.
2. Worker threads call the services directly and talk to agents through the Router. A forked worker connects to the
   listener and does the same over that connection; nothing of the parent's Router is touched in a fork.
3. `close()` first asks every agent to finish what it was told without waiting for (removal of temporary directories),
   then closes the pool, the connections (the end of its input is what ends an agent), the listener and the broker, and
   removes the directory. It runs once, whoever calls it first.
4. A target is untrusted: routing is unidirectional (targets cannot talk to one another), what mitogen would do for its
   children by itself is refused (closed_router.py), and a target's log messages go to Display.debug only.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import threading
from typing import Any

import mitogen.core
import mitogen.master
from ansible.utils.display import Display

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.closed_router import close_router
from ansible_mitogen_svc.controller.connection_plan import (
    MAX_MESSAGE_SIZE,
    ConnectionPlan,
    Targets,
    TaskSession,
    plan_arguments,
    start_failure,
)
from ansible_mitogen_svc.controller.listener import NAME, WorkerListener, private_directory
from ansible_mitogen_svc.controller.payload import Manifest, PayloadSplitter
from ansible_mitogen_svc.controller.progress import ProgressLine
from ansible_mitogen_svc.controller.target import LOGIN, Hello, Target
from ansible_mitogen_svc.controller.worker_session import WorkerSession
from ansible_mitogen_svc.controller.workers.gate import fork_gate
from ansible_mitogen_svc.services.connection import ConnectionService
from ansible_mitogen_svc.services.connection_limit import from_open_files
from ansible_mitogen_svc.services.file import FileService
from ansible_mitogen_svc.services.link import Link
from ansible_mitogen_svc.services.module_cache import ModuleCacheService
from ansible_mitogen_svc.services.tally import TallyService

#: Said once in a run; Display leaves out what it has said before.
CROWDED = (
    "ansible_mitogen.svc: the limit of open files (ulimit -n) has no room for a connection to each host. Connections "
    "that no task uses are closed and made again. Raise the limit, or set the option connection_limit to accept this."
)

display = Display()


class Session(Targets):
    """The session of the ansible-playbook process."""

    def __init__(self, pool_size: int, connection_limit: int = 0, forks: int = 5) -> None:
        """:param pool_size: threads of the pool; as many connections can be set up at once.
        :param connection_limit: connections that may be open at once; 0 for what the limit of open files has room for.
        :param forks: tasks that run at once.
        """
        super().__init__()
        self.splitter = PayloadSplitter()
        self._closed = threading.Event()
        _quieten_logging()
        self.directory = private_directory()
        self.broker = mitogen.master.Broker(install_watcher=False)
        self.router = mitogen.master.Router(self.broker, max_message_size=MAX_MESSAGE_SIZE)
        self.router.unidirectional = True
        close_router(self.router)
        self.path = os.path.join(self.directory, NAME)
        self._listener = WorkerListener.build_stream(self.router, path=self.path)
        self.module_cache = ModuleCacheService(self.router)
        limit = connection_limit or from_open_files(forks)
        self.connections = ConnectionService(self.router, limit, self._makes_room)
        self._limit_set = connection_limit > 0
        self._crowded = False
        self.files = FileService(self.router, ProgressLine())
        services = [self.module_cache, self.connections, self.files, TallyService(self.router, self.learn)]
        self.pool = service.Pool(self.router, services=services, size=pool_size, unpickle=service.AllowParents())
        self._link = Link(self.router)

    def connect(self, plan: ConnectionPlan, host: str) -> Target:
        """See TaskSession."""
        known = self.known_target(plan.key)
        if known is not None:
            return known
        try:
            with fork_gate.blocking():
                connected = service.call(self.pool, ConnectionService, "connect", **plan_arguments(plan))
        except service.CallFailed as error:
            raise start_failure(error) from None
        self.note_use(plan.key, host)
        if self._crowded and not self._limit_set:
            display.warning(CROWDED)
        hello = Hello.from_header(connected["hello"])
        target = Target(self._link, connected["context_id"], plan.key, plan.name, hello, self)
        return self.remember(target, self.router)

    def hold(self, key: str) -> None:
        """See TaskSession."""
        self.connections.hold(key)

    def release(self, key: str) -> None:
        """See TaskSession."""
        self.connections.release(key)

    def _makes_room(self, key: str) -> None:
        self._crowded = True
        self._forget(key)

    def _forget(self, key: str) -> None:
        target = self.known_target(key)
        if target is not None:
            target.alive = False

    def tell_use(self, key: str, host: str) -> None:
        """See Targets."""
        self.connections.used_for(key, host)

    def learn(self, targets: list[Any]) -> None:
        """Take what a forked worker has learned of targets: key, context id, name and `Target.news` of each."""
        for key, context_id, name, news in targets:
            target = self.known_target(key)
            if target is None:
                target = self._made_by_worker(key, context_id, name, news)
            if target is not None and target.context_id == context_id:
                target.learn(news)

    def _made_by_worker(self, key: str, context_id: int, name: str, news: list[Any]) -> Target | None:
        hello = next((entry[2] for entry in news if entry[0] == LOGIN and entry[2]), None)
        if hello is None:
            return None
        target = Target(self._link, context_id, key, name, Hello.from_header(hello), self)
        target = self.remember(target, self.router)
        if context_id not in self.connections.context_ids():
            target.alive = False  # it ended before anybody listened
        return target

    def offer(self, manifest: Manifest, context_id: int) -> None:
        """Let a target fetch the manifest's files."""
        self.module_cache.offer(manifest.id, manifest.text, manifest.files, manifest.files, context_id)

    def move_file(self, method: str, **arguments: Any) -> dict[str, Any]:
        """See TaskSession."""
        with fork_gate.blocking():
            return dict(service.call(self.pool, FileService, method, **arguments))

    def is_moving(self, target: Target, seconds: float) -> bool:
        """See TaskSession."""
        return self.files.is_moving(target.context_id, seconds)

    def disconnect(self, target: Target) -> None:
        """See TaskSession."""
        target.alive = False
        self.connections.disconnect(target.key)

    def explain_end(self, target: Target | None) -> str:
        """See TaskSession."""
        return self.connections.how_it_ended(target.context_id if target is not None else 0)

    def reset_host(self, host: str) -> None:
        """End the connections of an inventory host."""
        self.forget_uses(host)
        self.connections.reset(host, self._forget)

    def close(self) -> None:
        """End everything, in order; later calls return at once."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.connections.finish(self.connections.context_ids())
        self.connections.end()
        self.pool.close()
        self.broker.shutdown()
        self.broker.join()
        shutil.rmtree(self.directory, ignore_errors=True)


class SessionLifecycle:
    """Owner of the process's one session: starts it on first use, closes it once, and keeps forks apart from it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._worker: WorkerSession | None = None
        self._pid = os.getpid()
        self._ended = False
        self.pool_size = 16
        self.connection_limit = 0
        self.forks = 5

    def begin(self) -> None:
        """A play begins: a session may be started, also when there was a run before in this process."""
        self._ended = False

    def current(self) -> TaskSession:
        """The session of this process, started when there is none.

        :raises RuntimeError: the run has ended; a thread that a lost connection woke up must not start another session,
            which nobody would close.
        """
        if os.getpid() != self._pid:
            return self._current_worker()
        with self._lock:
            if self._session is None:
                if self._ended:
                    raise RuntimeError("the run has ended")
                self._session = Session(self.pool_size, self.connection_limit, self.forks)
                atexit.register(self.close)
            return self._session

    def _current_worker(self) -> WorkerSession:
        if self._worker is None:
            if self._session is None:
                raise RuntimeError("the session was not started before this worker was forked")
            # A task's timeout is an exception out of SIGALRM; in the middle of this it would leave a thread behind that
            # nobody ends, and with it the process.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            try:
                self._worker = WorkerSession(
                    self._session.path, self._session.splitter, self._session.module_cache, self._session
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._worker

    def known(self) -> Session | None:
        """The session of this process when it has been started."""
        return self._session

    def started(self) -> bool:
        """Whether this process has a session."""
        return self._session is not None or self._worker is not None

    def before_fork(self) -> None:
        """A worker is about to be forked: there must be something it can connect to."""
        self.current()

    def after_fork_in_child(self) -> None:
        """First thing in a forked worker: let go of the parent's descriptors and locks."""
        self._lock = threading.Lock()
        mitogen.core.Latch._on_fork()
        mitogen.core.Side._on_fork()

    def in_worker_process(self) -> bool:
        """Whether this is a forked worker."""
        return os.getpid() != self._pid

    def task_ended(self) -> None:
        """A task's executor is done; a forked worker, which runs only one, closes its session now."""
        if os.getpid() != self._pid:
            self.close()

    def release(self, keys: list[str]) -> None:
        """A task no longer uses connections that it held; what a forked worker held goes with its process."""
        session = self._session
        if session is not None and os.getpid() == self._pid:
            for key in keys:
                session.release(key)

    def reset_host(self, host: str) -> None:
        """``meta: reset_connection`` for an inventory host."""
        if self._session is not None and os.getpid() == self._pid:
            self._session.reset_host(host)

    @staticmethod
    def is_ours(connection_name: str) -> bool:
        """Whether tasks over a connection plugin go through the session."""
        from ansible_mitogen_svc.controller.transport import is_handled

        return is_handled(connection_name)

    def close(self) -> None:
        """Close the session of this process, in a forked worker that of the worker; later calls do nothing."""
        if os.getpid() != self._pid:
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.close()
            return
        with self._lock:
            session, self._session = self._session, None
            self._ended = True
        if session is not None:
            session.close()


def _quieten_logging() -> None:
    """mitogen logs through `logging`; Ansible's output is Display's. Its messages are kept for ANSIBLE_DEBUG only."""
    logger = logging.getLogger("mitogen")
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    if not logger.handlers:
        logger.addHandler(_DisplayHandler())


class _DisplayHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        display.debug(f"mitogen: {record.getMessage()}")


#: The session of this process.
session_lifecycle = SessionLifecycle()
