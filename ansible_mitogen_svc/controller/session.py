# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The Session: what one ansible-playbook run shares, and how task workers reach it.

`Session` lives in the ansible-playbook process, `WorkerSession` in a forked worker; both offer what `TaskSession` names,
and a task worker gets the right one from `session_lifecycle.current()`.

Theory of operation
1. The Session starts on first use: a mitogen Broker and Router, a unix listener in a private directory, and a Pool with
   our services. It stays over all plays of the run.
2. Worker threads call the services directly and talk to agents through the Router. A forked worker connects to the
   listener and does the same over that connection; nothing of the parent's Router is touched in a fork.
3. `close()` first asks every agent to finish what it was told without waiting for (removal of temporary directories),
   then closes the pool, the connections (the end of its input is what ends an agent), the listener and the broker, and
   removes the directory. It runs once, whoever calls it first.
4. A target is untrusted: routing is unidirectional (targets cannot talk to one another), the module responder of mitogen
   is replaced by a refusal, and a target's log messages go to Display.debug only.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import mitogen
import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.unix

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.payload import Manifest, PayloadSplitter
from ansible_mitogen_svc.controller.target import Hello, Target
from ansible_mitogen_svc.services.bootstrap import StartFailure
from ansible_mitogen_svc.services.connection import ConnectFailed, ConnectionService
from ansible_mitogen_svc.services.link import AnswerTimeout, Link, TargetLost
from ansible_mitogen_svc.services.module_cache import ModuleCacheService
from ansible_mitogen_svc.services.tally import TallyService
from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.wire import frames

#: Bytes; a module's whole output travels in one message.
MAX_MESSAGE_SIZE = frames.MAX_PAYLOAD
#: Seconds that agents may take to finish what they were told before the run ends without them.
FINISH_TIMEOUT = 5.0


@dataclass(frozen=True)
class ConnectionPlan:
    """What to start for a connection; made by a transport.

    Attributes:
        key: names the configuration; equal keys share a connection.
        name: for messages, such as ``ssh web1``.
        argv: program and arguments; see services/connection.py for the placeholder within.
        environment: whole environment of the program or None.
        password: for a program that reads it from a descriptor (sshpass).
        cwd: working directory on the controller or None.
        timeout: seconds until the attempt is given up.
    """

    key: str
    name: str
    argv: tuple[bytes, ...]
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    password: bytes | None = field(default=None, repr=False)
    cwd: str | None = None
    timeout: float = 60.0


class TaskSession(Protocol):
    """What a task worker may ask of the session, in whichever process it runs."""

    splitter: PayloadSplitter

    def connect(self, plan: ConnectionPlan, host: str) -> Target:
        """Connect or reuse. :raises StartFailure: the attempt failed."""

    def known_target(self, key: str) -> Target | None:
        """The live target of a key, when this process has it already."""

    def disconnect(self, target: Target) -> None:
        """End the connection; the next `connect` starts anew."""

    def explain_end(self, target: Target | None) -> str:
        """What ended a connection, for a message."""


class _Targets:
    """Targets of this process by key, with what is shared between `Session` and `WorkerSession`."""

    def __init__(self) -> None:
        # Guards `_by_key`.
        self._targets_lock = threading.Lock()
        self._by_key: dict[str, Target] = {}

    def known_target(self, key: str) -> Target | None:
        """The live target of a key, when this process has it already."""
        target = self._by_key.get(key)
        return target if target is not None and target.alive else None

    def _remember(self, target: Target, router: mitogen.parent.Router) -> Target:
        with self._targets_lock:
            known = self._by_key.get(target.key)
            if known is not None and known.alive and known.context_id == target.context_id:
                return known
            self._by_key[target.key] = target

        def lost() -> None:
            target.alive = False

        context = router.context_by_id(target.context_id)
        mitogen.core.listen(context, "disconnect", lost)
        return target


class Session(_Targets):
    """The session of the ansible-playbook process."""

    def __init__(self, pool_size: int) -> None:
        """:param pool_size: threads of the pool; as many connections can be set up at once."""
        super().__init__()
        self.splitter = PayloadSplitter()
        self._closed = threading.Event()
        _quieten_logging()
        self.directory = tempfile.mkdtemp(prefix="ansible-mitogen-svc-")
        self.broker = mitogen.master.Broker(install_watcher=False)
        self.router = mitogen.master.Router(self.broker, max_message_size=MAX_MESSAGE_SIZE)
        self.router.unidirectional = True
        _refuse_imports(self.router)
        self.path = os.path.join(self.directory, "listener")
        self._listener = WorkerListener.build_stream(self.router, path=self.path)
        self.module_cache = ModuleCacheService(self.router)
        self.connections = ConnectionService(self.router)
        services = [self.module_cache, self.connections, TallyService(self.router)]
        self.pool = service.Pool(self.router, services=services, size=pool_size)
        self._link = Link(self.router)

    def connect(self, plan: ConnectionPlan, host: str) -> Target:
        """See TaskSession."""
        known = self.known_target(plan.key)
        if known is not None:
            return known
        try:
            connected = service.call(self.pool, ConnectionService, "connect", **_plan_arguments(plan))
        except service.CallFailed as error:
            raise _start_failure(error) from None
        self.connections.used_for(plan.key, host)
        hello = Hello.from_header(connected["hello"])
        target = Target(self._link, connected["context_id"], plan.key, plan.name, hello, self)
        return self._remember(target, self.router)

    def offer(self, manifest: Manifest, context_id: int) -> None:
        """Let a target fetch the manifest's files."""
        self.module_cache.offer(manifest.id, manifest.text, manifest.files, manifest.files, context_id)

    def disconnect(self, target: Target) -> None:
        """See TaskSession."""
        target.alive = False
        self.connections.disconnect(target.key)

    def explain_end(self, target: Target | None) -> str:
        """See TaskSession."""
        return self.connections.how_it_ended(target.context_id if target is not None else 0)

    def reset_host(self, host: str) -> None:
        """End the connections of an inventory host."""
        self.connections.reset(host)

    def close(self) -> None:
        """End everything, in order; later calls return at once."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._finish_agents()
        self.connections.end()
        self.pool.close()
        self.broker.shutdown()
        self.broker.join()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _finish_agents(self) -> None:
        question = frames.pack_target(0, frames.pack_payload({"op": "finish"}))
        for pending in [self._link.ask(context_id, question) for context_id in self.connections.context_ids()]:
            try:
                pending.get(FINISH_TIMEOUT)
            except (TargetLost, AnswerTimeout):
                pass


class WorkerSession(_Targets):
    """The session as a forked worker sees it."""

    def __init__(self, parent: Session) -> None:
        super().__init__()
        self.splitter = parent.splitter
        self._parent_cache = parent.module_cache
        self.router, self._parent = mitogen.unix.connect(parent.path, mitogen.master.Broker(install_watcher=False))
        self.router.max_message_size = MAX_MESSAGE_SIZE
        self._link = Link(self.router)
        self._offered: set[tuple[str, int]] = set()

    def connect(self, plan: ConnectionPlan, host: str) -> Target:
        """See TaskSession."""
        known = self.known_target(plan.key)
        if known is not None:
            return known
        try:
            connected = service.call(self._parent, ConnectionService, "connect", **_plan_arguments(plan))
        except service.CallFailed as error:
            raise _start_failure(error) from None
        service.call(self._parent, ConnectionService, "used_for", key=plan.key, host=host)
        hello = Hello.from_header(connected["hello"])
        target = Target(self._link, connected["context_id"], plan.key, plan.name, hello, self)
        return self._remember(target, self.router)

    def offer(self, manifest: Manifest, context_id: int) -> None:
        """Let a target fetch the manifest's files; what the parent knew when this process was forked is not sent again."""
        if (manifest.id, context_id) in self._offered:
            return
        self._offered.add((manifest.id, context_id))
        service.call(
            self._parent,
            ModuleCacheService,
            "offer_from_worker",
            manifest=manifest.id,
            text=manifest.text,
            files={} if self._parent_cache.knows(manifest.id) else dict(manifest.files),
            digests=list(manifest.files),
            context_id=context_id,
        )

    def disconnect(self, target: Target) -> None:
        """See TaskSession."""
        target.alive = False
        service.call(self._parent, ConnectionService, "disconnect", key=target.key)

    def explain_end(self, target: Target | None) -> str:
        """See TaskSession."""
        context_id = target.context_id if target is not None else 0
        return str(service.call(self._parent, ConnectionService, "how_it_ended", context_id=context_id))

    def close(self) -> None:
        """Hand over the statistics and end the connection to the parent."""
        try:
            service.call(self._parent, TallyService, "add", **counters.take())
        except service.CallFailed:
            pass
        self.router.broker.shutdown()
        self.router.broker.join()


class WorkerListener(mitogen.unix.Listener):  # type: ignore[misc]
    """Takes forked workers of this very run, and nobody else.

    The socket is 0600 in a 0700 directory; the peer's user is checked all the same. A worker's stream gets this
    process's authority, and may talk to targets although routing is unidirectional.
    """

    def on_accept_client(self, sock: socket.socket) -> None:
        """Called in the broker thread for each connection."""
        sock.settimeout(5.0)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", credentials)
        if uid != os.geteuid() or len(sock.recv(4)) != 4:
            sock.close()
            return
        context_id = self._router.id_allocator.allocate()
        sock.sendall(struct.pack(">LLL", context_id, mitogen.context_id, os.getpid()))
        context = mitogen.parent.Context(self._router, context_id)
        stream = mitogen.core.MitogenProtocol.build_stream(
            router=self._router, remote_id=context_id, auth_id=mitogen.context_id
        )
        stream.protocol.is_privileged = True
        stream.name = f"worker.{pid}"
        sock.setblocking(False)
        stream.accept(sock, sock)
        self._router.register(context, stream)
        self._router.route_monitor.notice_stream(stream)


class SessionLifecycle:
    """Owner of the process's one session: starts it on first use, closes it once, and keeps forks apart from it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._worker: WorkerSession | None = None
        self._pid = os.getpid()
        self.pool_size = 16

    def current(self) -> Session | WorkerSession:
        """The session of this process, started when there is none."""
        if os.getpid() != self._pid:
            return self._current_worker()
        with self._lock:
            if self._session is None:
                self._session = Session(self.pool_size)
                atexit.register(self.close)
            return self._session

    def _current_worker(self) -> WorkerSession:
        if self._worker is None:
            if self._session is None:
                raise RuntimeError("the session was not started before this worker was forked")
            self._worker = WorkerSession(self._session)
        return self._worker

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
        if session is not None:
            session.close()


def _plan_arguments(plan: ConnectionPlan) -> dict[str, Any]:
    command = {
        "argv": list(plan.argv),
        "environment": None if plan.environment is None else dict(plan.environment),
        "password": plan.password,
        "cwd": plan.cwd,
    }
    return {"key": plan.key, "name": plan.name, "command": command, "timeout": float(plan.timeout)}


def _start_failure(error: service.CallFailed) -> StartFailure:
    if error.type_name.endswith("." + ConnectFailed.__name__):
        return ConnectFailed.failure(error.message)
    return StartFailure(None, b"", str(error).encode(), "pool")


def _refuse_imports(router: mitogen.parent.Router) -> None:
    """No target gets a source file of the controller through mitogen's importer."""

    def refuse(message: mitogen.core.Message) -> None:
        if not message.is_dead:
            message.reply(mitogen.core.Message.dead("refused"))

    for handle in (mitogen.core.GET_MODULE, mitogen.core.GET_RESOURCE):
        router.add_handler(refuse, handle=handle, overwrite=True)


def _quieten_logging() -> None:
    """mitogen logs through `logging`; Ansible's output is Display's. Its messages are kept for ANSIBLE_DEBUG only."""
    logger = logging.getLogger("mitogen")
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    if not logger.handlers:
        logger.addHandler(_DisplayHandler())


class _DisplayHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from ansible.utils.display import Display

        Display().debug(f"mitogen: {record.getMessage()}")


#: The session of this process.
session_lifecycle = SessionLifecycle()

__all__ = ["ConnectionPlan", "Session", "SessionLifecycle", "StartFailure", "TaskSession", "session_lifecycle"]
