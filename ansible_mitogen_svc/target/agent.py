# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The agent: the mitogen child on a target that hands jobs to zygotes and starts zygotes for other identities.

Shipped to hosts; runs as the login user. All of it runs in the broker thread of the mitogen child, so no call here
may block. `docs/protocol.md` is the contract; the controller's side is `controller/target.py`.

Theory of operation
1. The controller's messages arrive at handle 7000 (only from a context with the controller's authority). A message
   is a zygote number and a payload that the agent does not look at, unless the number is 0.
2. Each zygote is a stream. A call gets the next id of that stream; the reply frame with the same id is sent back to
   whoever asked. A cast is passed on with id 0.
3. A zygote that misses files asks; the agent looks into the login user's store, then asks the controller's
   ModuleCacheService, and passes the answer on. It never waits for it.
4. `start` runs any command (a become command, another interpreter) with pipes or a terminal; `converse` carries
   its output to the controller, which knows the become plugin, and the password back; `adopt` makes a zygote of it.
5. Large files are threads of their own (files.py); what they answer is sent by the broker thread.
6. When a zygote's output ends, every call it has not answered is answered "lost", with its exit status.
   When the controller's stream ends, mitogen shuts the broker down and this process exits; zygotes see the end of
   their input and exit too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import termios
import tty
import zlib

import mitogen.core
from mitogen.core import Message

from ansible_mitogen_svc.target import files, store
from ansible_mitogen_svc.target.identities import Identities
from ansible_mitogen_svc.target.starting import start_on_pipes, start_on_terminal
from ansible_mitogen_svc.target.zygote_stream import (
    LOGIN_ZYGOTE,
    Caller,
    Countdown,
    ErrorOutput,
    Sequel,
    ZygoteStream,
    reap,
)
from ansible_mitogen_svc.wire import frames, transfer

#: Seconds that zygotes may take to end when the agent does, which nobody waits for.
REAPING = 2.0
MODULE_CACHE = "ansible_mitogen_svc.services.module_cache.ModuleCacheService"


class Agent:
    """Owner of the zygotes; `on_message` is the handler of handle 7000."""

    def __init__(self, router, master, sections):
        self.router = router
        self.broker = router.broker
        self.master = master
        self.zygotes: dict[int, ZygoteStream] = {}
        self._source = b"\0".join([b"zygote"] + sections[1:])
        self._next = LOGIN_ZYGOTE
        self.identities = Identities(self.zygotes)
        self._operations = {
            "hello": self.on_hello,
            "start": self.on_start,
            "converse": self.on_converse,
            "adopt": self.on_adopt,
            "stop": self.on_stop,
            "replace": self.on_replace,
            "finish": self.on_finish,
            "resolve": self.identities.on_resolve,
            "abandon": self.on_abandon,
            "retire_user": self.on_retire_user,
            "chain": self.on_chain,
        }
        self.transfers = files.Transfers(self.answer_from_thread, files.ThreadedTransfer)
        self._operations.update(dict.fromkeys(files.OPERATIONS, self.transfers.handle))
        self._operations.update(dict.fromkeys(files.BEGINNINGS, self.on_begin_transfer))
        router.add_handler(self.on_message, handle=frames.AGENT_HANDLE, policy=mitogen.core.has_parent_authority)

    def add(self, reader, writer, name, pid, adopted=False):
        """Take a process's descriptors; all is set before the broker thread can see its first output."""
        zygote = ZygoteStream(self, self._next)
        zygote.pid = pid
        zygote.adopted = zygote.ready = adopted
        self.zygotes[self._next] = zygote
        self._next += 1
        stream = mitogen.core.Stream()
        stream.set_protocol(zygote)
        stream.name = name
        stream.accept(reader, writer)
        stream.receive_side.keep_alive = False
        self.broker.start_receive(stream)
        return zygote

    def on_message(self, message):
        if message.is_dead:
            return
        caller = Caller(self.router, message)
        number, payload = frames.split_target(message.data)
        if number:
            return self.forward(number, caller, payload)
        # What a file's parts hold is not copied; whoever keeps a blob keeps the message.
        header, blobs = frames.view_payload(payload)
        try:
            self._operations[header["op"]](caller, header, blobs)
        except Exception as error:
            caller.answer(frames.pack_payload({"error": {"type": type(error).__name__, "message": str(error)}}))

    def on_begin_transfer(self, caller, header, blobs):
        stream = self.router.stream_by_id(mitogen.parent_id)
        for side in (stream.receive_side, stream.transmit_side):
            transfer.widen(side.fd)
        stream.protocol.read_size = transfer.PIPE
        self.transfers.handle(caller, header, blobs)

    def forward(self, number, caller, payload):
        zygote = self.zygotes.get(number)
        if zygote is None:
            error = {"type": "LookupError", "message": f"no zygote {number}"}
            return caller.answer(frames.pack_payload({"error": error}))
        zygote.forward(caller, payload)

    def answer_from_thread(self, caller, header, blobs):
        if caller.handle:
            self.broker.defer(self.router._async_route, caller.parcel(frames.payload_pieces(header, blobs)))

    # -- operations

    def on_chain(self, caller, header, blobs):
        """What one zygote has to do before another: the second hears of it when the first has answered well."""
        first, second = header["zygotes"]
        then = Sequel(caller, self.zygotes.get(second), lambda: self.forward(second, caller, blobs[1]))
        self.forward(first, then, blobs[0])

    def on_hello(self, caller, header, blobs):
        zygote = self.zygotes[LOGIN_ZYGOTE]
        if zygote.hello is not None:
            caller.answer(zygote.hello)
        elif zygote.gone is not None:
            caller.answer(frames.pack_payload(zygote.gone))
        else:
            zygote.waiting_for_hello.append(caller)

    def on_start(self, caller, header, blobs):
        zygote = self.start(header["argv"], header.get("environment"), header.get("cwd"), header.get("tty"))
        caller.answer(frames.pack_payload({"zygote": zygote.number}))

    def start(self, argv, environment, cwd, with_terminal):
        started = (start_on_terminal if with_terminal else start_on_pipes)(argv, environment, cwd)
        zygote = self.add(started.output, started.input, f"zygote.{started.process.pid}", started.process.pid)
        zygote.process = started.process
        zygote.terminal = started.terminal
        if started.errors is None:
            return zygote
        stream = mitogen.core.Stream()
        stream.set_protocol(ErrorOutput(zygote))
        stream.name = zygote.stream.name + ".stderr"
        stream.accept(started.errors, started.errors)
        stream.receive_side.keep_alive = False
        zygote.error_side = stream.receive_side
        self.broker.start_receive(stream)
        return zygote

    def on_retire_user(self, caller, header, blobs):
        """End the idle zygotes of an account that is about to be removed: userdel refuses while one of its
        processes runs.
        """
        leaving = [zygote for zygote in self.zygotes.values() if self.can_retire(zygote, header["user"])]
        if not leaving:
            return caller.answer(frames.pack_payload({}))
        waiting = Countdown(len(leaving), caller)
        for zygote in leaving:
            zygote.retire(waiting)

    @staticmethod
    def can_retire(zygote, user):
        return zygote.expendable and frames.unpack_payload(zygote.hello)[0]["user"] == user

    def on_abandon(self, caller, header, blobs):
        """The caller who was to start an identity could not."""
        self.identities.abandon(header["identity"])
        if header.get("zygote"):
            self.on_stop(caller, header, blobs)

    def on_converse(self, caller, header, blobs):
        zygote = self.zygotes[header["zygote"]]
        zygote.conversation = caller
        if blobs and blobs[0]:
            zygote.write(blobs[0])
        zygote.speak()

    def on_adopt(self, caller, header, blobs):
        zygote = self.zygotes[header["zygote"]]
        if zygote.gone is not None:
            return caller.answer(frames.pack_payload(zygote.gone))
        zygote.waiting_for_hello.append(caller)
        zygote.adopted = True
        zygote.identity = header.get("identity")
        if zygote.terminal is not None:
            tty.setraw(zygote.terminal, termios.TCSANOW)
        compressed = zlib.compress(self._source, 1)
        boot = b"%010d" % len(compressed) + compressed
        if zygote.terminal is None:
            zygote.write(boot)
        else:
            zygote.boot = boot
        zygote.on_receive(self.broker, b"")

    def on_stop(self, caller, header, blobs):
        zygote = self.zygotes.get(header["zygote"])
        if zygote is not None and zygote.gone is None:
            if zygote.process is not None and not zygote.adopted:
                zygote.process.kill()
            zygote.stream.on_disconnect(self.broker)
        caller.answer(frames.pack_payload({}))

    def on_replace(self, caller, header, blobs):
        """A zygote is not what would be started now: its identity gets another one, it ends when it has answered."""
        zygote = self.zygotes[header["zygote"]]
        if zygote.gone is None and zygote.number != LOGIN_ZYGOTE:
            self.identities.forget(zygote)
            zygote.replaced = True
            zygote.retire_if_replaced()
        caller.answer(frames.pack_payload({}))

    def on_finish(self, caller, header, blobs):
        """Frames of one stream are handled in order, so the answer to a ping tells that all casts before it are
        done.
        """
        alive = [zygote for zygote in self.zygotes.values() if zygote.gone is None and zygote.hello is not None]
        if not alive:
            return caller.answer(frames.pack_payload({}))
        waiting = Countdown(len(alive), caller)
        for zygote in alive:
            zygote.forward(waiting, frames.pack_payload({"op": "ping"}))

    # -- questions of zygotes

    def question(self, zygote, number, payload):
        header, _ = frames.unpack_payload(payload)
        wanted = list(header["sha256"])
        found = {}
        for digest in wanted:
            data = store.read_file(digest)
            if data is not None:
                found[digest] = data
        missing = [digest for digest in wanted if digest not in found]
        if not missing:
            return self.answer_question(zygote, number, found)
        request = {"service": MODULE_CACHE, "method": "fetch", "arguments": {"sha256": missing}}
        message = Message(
            handle=mitogen.core.CALL_SERVICE, enc=Message.ENC_BIN, data=json.dumps(request).encode()
        )

        def arrived(reply):
            if not reply.is_dead:
                found.update(self.files_of(reply))
            self.answer_question(zygote, number, found)

        message.dst_id = self.master.context_id
        message.reply_to = self.router.add_handler(arrived, persist=False, respondent=self.master)
        self.router._async_route(message)

    @staticmethod
    def files_of(reply):
        """What the service sent; nothing when it refused, the zygote then fails the jobs that wait for it."""
        if reply.enc != Message.ENC_BIN:
            return {}
        header, blobs = frames.unpack_payload(reply.data)
        return dict(zip(header["sha256"], blobs))

    def answer_question(self, zygote, number, found):
        payload = frames.pack_payload({"op": "files", "sha256": list(found)}, list(found.values()))
        zygote.write(frames.pack_frame(number, payload))


class AgentContext(mitogen.core.ExternalContext):
    """mitogen's child, with the agent in it and without an importer: nothing is ever imported from the controller."""

    def __init__(self, config, pid, socket_, sections):
        super().__init__(config)
        self._login = (pid, socket_)
        self._sections = sections
        self.agent: Agent | None = None
        self.main_ended = False

    def _reap_first_stage(self):
        # mitogen waits for its first stage here; the only child of this process is the zygote.
        pass

    def _setup_importer(self):
        super()._setup_importer()
        sys.meta_path.remove(self.importer)

    def _setup_package(self):
        package = sys.modules["mitogen"]
        vars(package)["core"] = mitogen.core
        mitogen.core.mitogen = package

    def _setup_globals(self):
        super()._setup_globals()
        agent = self.agent = Agent(self.router, self.master, self._sections)
        pid, socket_ = self._login
        socket_.setblocking(False)
        descriptor = socket_.detach()
        reader, writer = os.fdopen(descriptor, "rb", 0), os.fdopen(os.dup(descriptor), "wb", 0)
        agent.add(reader, writer, "zygote.login", pid, adopted=True)

    def _on_broker_exit(self):
        # All streams are closed by now, so the zygotes are about to end.
        if self.agent is not None:
            reap(list(self.agent.zygotes.values()), REAPING)
        if not self.main_ended:
            super()._on_broker_exit()


def run(config, pid, socket_, sections):
    """Run the agent until the controller goes away. `pid`, `socket_`: the login zygote; `sections`: see boot.py."""
    context = AgentContext(config, pid, socket_, sections)
    try:
        context.main()
    finally:
        if context.agent is not None:
            context.agent.transfers.close()
        context.main_ended = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # mitogen sends one 50 ms after the end of a local connection
        context.broker.join()
