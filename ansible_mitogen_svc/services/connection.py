# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""ConnectionService: one connection per distinct configuration, however many tasks ask at once.

Runs on the Session's Pool in the ansible-playbook process. Called by task workers, in threads of the process
or over the unix listener from forked ones.

Theory of operation
1. A `connect` names what would be started (`key` is a hash of it). The deduplicating invoker runs one attempt per
   key; everyone who asked meanwhile, and everyone after, gets the same answer. A failure goes to those waiting and is
   not kept: the next task tries again.
2. When the connection ends, its key is invalidated in the broker thread; the next task connects anew.
3. `reset` and `disconnect` take connections out of use at once: who asks from now on gets a new one. Tasks that are
   under way, maybe of another inventory host that is the same machine, go on over the old one (as they do when core
   asks ssh to stop the master, ``ssh -O stop``), and the last of them ends it.
4. The number of connections is bounded, by default by the limit of open files (connection_limit.py). Before one more is
   made, one that no task holds is closed. A forked worker's holds end with its own connection to this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, cast

import mitogen.core
import mitogen.parent

from ansible_mitogen_svc import service
from ansible_mitogen_svc.services import bootstrap
from ansible_mitogen_svc.services.connection_limit import Holders
from ansible_mitogen_svc.services.link import AnswerTimeout, Link, TargetLost
from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.wire import frames

#: Stands in an argument for the size of the preamble, which is known only when the child is started.
PREAMBLE_SIZE = b"@svc-preamble-size@"
#: Seconds that an agent may take to answer once its router runs; it waits for the login zygote's start.
HELLO_TIMEOUT = 60.0
#: Seconds to wait for the broker thread to close a connection.
CLOSE_TIMEOUT = 10.0
#: Seconds that agents may take to finish what they were told before their connections are closed without them.
FINISH_TIMEOUT = 5.0


class ConnectFailed(Exception):
    """A connection attempt failed; the message is JSON of a bootstrap.StartFailure's parts."""

    @classmethod
    def of(cls, failure: bootstrap.StartFailure) -> ConnectFailed:
        """Wrap a failure for the way through the pool."""
        return cls(
            json.dumps(
                {
                    "returncode": failure.returncode,
                    "stdout": failure.stdout.decode("latin-1"),
                    "stderr": failure.stderr.decode("latin-1"),
                    "reason": failure.reason,
                    "seconds": failure.seconds,
                }
            )
        )

    @staticmethod
    def failure(text: str) -> bootstrap.StartFailure:
        """The failure in the message of a ConnectFailed."""
        parts = json.loads(text)
        return bootstrap.StartFailure(
            parts["returncode"],
            parts["stdout"].encode("latin-1"),
            parts["stderr"].encode("latin-1"),
            parts["reason"],
            parts["seconds"],
        )


class ConnectionInvoker(service.DeduplicatingInvoker):
    """Attempts are the same when they would start the same, whoever asks and for whichever host."""

    def key_from_request(self, method_name: str, kwargs: dict[str, Any]) -> Hashable:
        """See DeduplicatingInvoker."""
        return (method_name, kwargs["key"])


class ConnectionService(service.Service):
    """See the module."""

    invoker_class = ConnectionInvoker

    def __init__(
        self,
        router: mitogen.parent.Router,
        limit: int | None = None,
        closing: Callable[[str], None] = lambda key: None,
    ) -> None:
        """:param limit: connections that may be open at once; None for any number.
        :param closing: told the key of each connection that makes room, before anybody can ask for it again; must not
            wait for anything.
        """
        super().__init__(router)
        self._link = Link(router)
        self._limit = limit
        self._closing = closing
        # Guards the seven below; never held while another lock is taken.
        self._contexts_lock = threading.Lock()
        self._contexts: dict[str, mitogen.parent.Context] = {}
        # Out of use, but for tasks that hold their key.
        self._retired: dict[str, list[mitogen.parent.Context]] = {}
        self._starting = 0
        self._holders = Holders()
        self._workers: dict[int, set[str]] = {}
        self._ending = False
        self._hosts: dict[str, set[str]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @service.expose(service.AllowParents())
    @service.arg_spec({"key": str, "name": str, "command": dict, "timeout": float})
    def connect(self, key: str, name: str, command: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Connect, or answer with the connection that there is.

        :param key: what is started, hashed.
        :param name: for messages.
        :param command: argv (list of bytes), environment (dict of str or None), password (bytes or None), cwd.
        :param timeout: seconds.
        :returns: ``{"context_id": int, "hello": header of the login zygote's hello}``.
        :raises ConnectFailed: with the parts of the failure as JSON.
        """
        started = time.monotonic()
        self._make_room()
        try:
            context, connection = bootstrap.connect(self.router, name, lambda size: _command(command, size), timeout)
            header = self._greet(context)
            with self._contexts_lock:
                self._contexts[key] = context
                self._processes[context.context_id] = connection.proc.proc
        except bootstrap.StartFailure as failure:
            counters.add("connections", "failed")
            raise ConnectFailed.of(failure) from None
        finally:
            counters.add("seconds", "connect", amount=time.monotonic() - started)
            with self._contexts_lock:
                self._starting -= 1
        counters.add("connections", "opened")
        mitogen.core.listen(context, "disconnect", lambda: self._on_lost(key, context))
        if self.router.stream_by_id(context.context_id) is None:
            self._on_lost(key, context)
            ended = bootstrap.StartFailure(None, b"", self.how_it_ended(context.context_id).encode(), "agent")
            raise ConnectFailed.of(ended)
        return {"context_id": context.context_id, "hello": header}

    def _greet(self, context: mitogen.parent.Context) -> dict[str, Any]:
        try:
            pending = self._link.ask(context.context_id, frames.pack_target(0, frames.pack_payload({"op": "hello"})))
            header, _ = frames.unpack_payload(pending.get(HELLO_TIMEOUT))
            if "uid" not in header:
                raise ValueError(f"the zygote did not start: {header}")
        except Exception as error:
            self._close(context)
            raise bootstrap.StartFailure(None, b"", str(error).encode(), "agent") from None
        return header

    def _make_room(self) -> None:
        """Count a connection that is about to be made, and close one that nobody holds where it is one too many."""
        key = None
        with self._contexts_lock:
            self._starting += 1
            open_ = len(self._contexts) + sum(map(len, self._retired.values())) + self._starting
            if self._limit is not None and open_ > self._limit:
                key = self._holders.draw(self._contexts)
            if key is not None:
                context = self._contexts.pop(key)
                self._closing(key)
        if key is not None:
            self.invalidate(key)
            counters.add("connections", "closed for another")
            self.finish([context.context_id])
            self._close(context)

    def hold(self, key: str) -> None:
        """A task of this process uses the connection of a key, or is about to ask for it: it stays open."""
        with self._contexts_lock:
            self._holders.hold(key)

    def release(self, key: str) -> None:
        """That task has ended."""
        with self._contexts_lock:
            self._holders.release(key)
            unused = self._unused(key)
        self._close_soon(unused)

    @service.expose(service.AllowParents())
    @service.arg_spec({"key": str})
    @service.not_deduplicated()
    def hold_for_worker(self, key: str, msg: mitogen.core.Message) -> None:
        """`hold` for a forked worker, until its connection to this process ends."""
        worker = msg.src_id
        with self._contexts_lock:
            keys = self._workers.get(worker)
            if keys is not None and key in keys:
                return
            self._workers.setdefault(worker, set()).add(key)
            self._holders.hold(key)
        if keys is None:
            mitogen.core.listen(self.router.context_by_id(worker), "disconnect", lambda: self._on_worker_ended(worker))

    def _on_worker_ended(self, worker: int) -> None:
        unused = []
        with self._contexts_lock:
            for key in self._workers.pop(worker, ()):
                self._holders.release(key)
                unused += self._unused(key)
        self._close_soon(unused)

    def _unused(self, key: str) -> list[mitogen.parent.Context]:
        """The retired connections of a key that no task holds any more; they are the caller's to close."""
        return [] if self._holders.count(key) else self._retired.pop(key, [])

    def finish(self, context_ids: list[int]) -> None:
        """Let agents do what they were told without anybody waiting for it."""
        question = frames.pack_target(0, frames.pack_payload({"op": "finish"}))
        for pending in [self._link.ask(context_id, question) for context_id in context_ids]:
            try:
                pending.get(FINISH_TIMEOUT)
            except (TargetLost, AnswerTimeout):
                pass

    def _on_lost(self, key: str, context: mitogen.parent.Context) -> None:
        with self._contexts_lock:
            retired = self._retired.get(key, [])
            if context in retired:
                retired.remove(context)
            if self._contexts.get(key) is not context:
                return
            del self._contexts[key]
            ending = self._ending
        if not ending:
            counters.add("connections", "lost")
            self.invalidate(key)

    def _close(self, context: mitogen.parent.Context) -> None:
        """End a context's stream, and wait until it has ended.

        mitogen's `Router.disconnect` looks its stream up by the context instead of the context's id, finds none and
        returns (0.3.54).
        """
        ended = mitogen.core.Latch()
        self._close_soon([context], ended)
        try:
            ended.get(timeout=CLOSE_TIMEOUT)
        except mitogen.core.TimeoutError:
            pass

    def _close_soon(self, contexts: list[mitogen.parent.Context], ended: mitogen.core.Latch | None = None) -> None:
        """As `_close`, for any thread: without waiting."""

        def close_in_broker() -> None:
            for context in contexts:
                stream = self.router.stream_by_id(context.context_id)
                if stream is not None and stream.protocol.remote_id == context.context_id:
                    stream.on_disconnect(self.router.broker)
            if ended is not None:
                ended.put()

        if contexts:
            self.router.broker.defer(close_in_broker)

    def invalidate(self, key: str) -> None:
        """The next `connect` of the key starts anew."""
        self.invoker.invalidate("connect", key=key)

    @service.expose(service.AllowParents())
    @service.arg_spec({"key": str})
    @service.not_deduplicated()
    def disconnect(self, key: str) -> None:
        """End a connection that the caller's task holds; nothing happens when there is none."""
        self._retire(key, holders=1)

    def _retire(self, key: str, holders: int) -> None:
        """Take a connection out of use, and end it now unless more than `holders` tasks hold it."""
        with self._contexts_lock:
            context = self._contexts.pop(key, None)
            if context is not None and self._holders.count(key) > holders:
                self._retired.setdefault(key, []).append(context)
                context = None
        self.invalidate(key)
        if context is not None:
            self._close(context)

    @service.expose(service.AllowParents())
    @service.arg_spec({"context_id": int})
    @service.not_deduplicated()
    def how_it_ended(self, context_id: int) -> str:
        """What is known of the end of a connection, as half a sentence."""
        process = self._processes.get(context_id)
        if process is None:
            return "the connection was closed"
        program = os.path.basename(os.fsdecode(cast(list[bytes], process.args)[0]))
        try:
            status = process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "the agent on the target has died"
        if status < 0 and program == "sh":
            return f"the agent was killed by signal {-status}"
        if status < 0:
            return f"the {program} process on the controller was killed by signal {-status}"
        return f"the agent on the target has died ({program} ended with status {status})"

    @service.expose(service.AllowParents())
    @service.arg_spec({"key": str, "host": str})
    @service.not_deduplicated()
    def used_for(self, key: str, host: str) -> None:
        """Note that an inventory host's tasks use a connection."""
        with self._contexts_lock:
            self._hosts.setdefault(host, set()).add(key)

    def reset(self, host: str, forget: Callable[[str], None] = lambda key: None) -> None:
        """End the connections of an inventory host.

        :param forget: told the key of each before it goes out of use.
        """
        with self._contexts_lock:
            keys = self._hosts.pop(host, set())
        for key in keys:
            forget(key)
            self._retire(key, holders=0)

    def end(self) -> None:
        """The run is over: connections that close from now on are not lost."""
        with self._contexts_lock:
            self._ending = True

    def context_ids(self) -> list[int]:
        """Ids of the contexts that are connected."""
        with self._contexts_lock:
            return [context.context_id for context in self._contexts.values()]


def _command(parts: dict[str, Any], preamble_size: int) -> bootstrap.ChildCommand:
    size = b"%d" % preamble_size
    return bootstrap.ChildCommand(
        argv=tuple(argument.replace(PREAMBLE_SIZE, size) for argument in parts["argv"]),
        environment=parts.get("environment"),
        password=parts.get("password"),
        cwd=parts.get("cwd"),
    )
