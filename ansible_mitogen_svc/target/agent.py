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
5. When a zygote's output ends, every call it has not answered is answered "lost", with its exit status.
   When the controller's stream ends, mitogen shuts the broker down and this process exits; zygotes see the end of
   their input and exit too.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import time
import tty
import zlib

import mitogen.core
from mitogen.core import Message

from ansible_mitogen_svc.target import store
from ansible_mitogen_svc.wire import frames

LOGIN_ZYGOTE = 1
MODULE_CACHE = "ansible_mitogen_svc.services.module_cache.ModuleCacheService"
#: Written by the first stage of a started zygote, see services/bootstrap.py.
READY = b"SVC-ZYGOTE\n"
STDERR_KEPT = 2048


class Caller:
    """Whoever waits for an answer: context and handle to reply to, or nobody."""

    __slots__ = ("router", "context_id", "handle")

    def __init__(self, router, message):
        self.router = router
        self.context_id = message.src_id
        self.handle = message.reply_to

    def answer(self, payload):
        if self.handle:
            answer = Message(dst_id=self.context_id, handle=self.handle, enc=Message.ENC_BIN, data=payload)
            self.router._async_route(answer)


class Zygote(mitogen.core.Protocol):
    """One zygote's stream, from the process's start on (`adopted` tells whether it talks frames yet)."""

    read_size = 262144

    def __init__(self, agent, number):
        self.agent = agent
        self.number = number
        self._writer = mitogen.core.BufferedWriter(agent.broker, self)
        self._frames = frames.FrameParser()
        self._pending = {}
        self._next_id = 0
        self.process = None
        self.pid = None
        self.terminal = None
        self.hello = None
        self.identity = None
        self.executable = None
        self.waiting_for_hello = []
        self.output = [bytearray(), bytearray()]
        self.errors = b""
        self.conversation = None
        self.adopted = False
        self.ready = False
        self.gone = None
        self._seen = b""

    # -- towards the zygote

    def on_transmit(self, broker):
        self._writer.on_transmit(broker)

    def write(self, data):
        if self.gone is None:
            self._writer.write(data)

    def forward(self, caller, payload):
        if self.gone is not None:
            return caller.answer(frames.pack_payload(self.gone))
        number = 0
        if caller.handle:
            self._next_id = number = self._next_id % 0x7FFFFFFF + 1
            self._pending[number] = caller
        self.write(frames.pack_frame(number, payload))

    # -- from the zygote

    def on_receive(self, broker, data):
        if not self.adopted:
            self.output[0] += data
            return self.speak()
        if not self.ready:
            self._seen = (self._seen + data)[-65536:]
            before, marker, data = self._seen.partition(READY)
            if not marker:
                return
            self.ready = True
        try:
            for number, payload in self._frames.feed(data):
                self.receive(number, payload)
        except frames.FrameError as error:
            self.errors += str(error).encode()
            self.stream.on_disconnect(broker)

    def receive(self, number, payload):
        if number >= frames.QUESTION:
            self.agent.question(self, number, payload)
        elif number:
            caller = self._pending.pop(number, None)
            if caller is not None:
                caller.answer(payload)
        elif self.hello is None:
            self.hello = payload
            if self.identity:
                self.agent.adopted(self.identity, self)
            waiting, self.waiting_for_hello = self.waiting_for_hello, []
            for caller in waiting:
                caller.answer(payload)

    def on_error_output(self, data):
        self.errors = (self.errors + data)[-STDERR_KEPT:]
        if not self.adopted:
            self.output[1] += data
            self.speak()

    def speak(self):
        """Answer a waiting `converse` when there is something to say."""
        if self.conversation and (self.output[0] or self.output[1] or self.gone is not None):
            caller, self.conversation = self.conversation, None
            blobs = [bytes(part) for part in self.output]
            self.output = [bytearray(), bytearray()]
            closed = self.gone is not None
            caller.answer(frames.pack_payload({"closed": closed, "rc": closed and self.gone["rc"] or None}, blobs))

    # -- the end

    def on_disconnect(self, broker):
        super().on_disconnect(broker)
        self.gone = {"lost": "zygote", "rc": None, "signal": None, "stderr": ""}
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None
        self.collect(attempts=5)
        self.gone["stderr"] = self.errors.decode("utf-8", "replace")
        lost = frames.pack_payload(self.gone)
        pending, self._pending = list(self._pending.values()) + self.waiting_for_hello, {}
        self.waiting_for_hello = []
        for caller in pending:
            caller.answer(lost)
        self.speak()

    def collect(self, attempts):
        """Reap the process and note how it ended; it may need an instant after its output closed."""
        returncode = self.returncode()
        if returncode is None and attempts:
            time.sleep(0.002)
            self.collect(attempts - 1)
        elif returncode is not None and returncode < 0:
            self.gone["signal"] = -returncode
        else:
            self.gone["rc"] = returncode

    def returncode(self):
        """Exit status as subprocess gives it; None while the process runs or when nobody knows."""
        if self.process is not None:
            return self.process.poll()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except OSError:
            return None
        if not pid:
            return None
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def on_shutdown(self, broker):
        # The end of its input is what makes a zygote leave.
        self.stream.on_disconnect(broker)


class ErrorOutput(mitogen.core.Protocol):
    """Standard error (or the terminal) of a started process."""

    def __init__(self, zygote):
        self.zygote = zygote

    def on_receive(self, broker, data):
        self.zygote.on_error_output(data)


class Agent:
    """Owner of the zygotes; `on_message` is the handler of handle 7000."""

    def __init__(self, router, master, sections):
        self.router = router
        self.broker = router.broker
        self.master = master
        self.zygotes = {}
        self._source = b"\0".join([b"zygote"] + sections[1:])
        self._next = LOGIN_ZYGOTE
        #: {identity: its zygote, or the list of callers that wait while one of them starts it}
        self.identities = {}
        self._operations = {
            "hello": self.on_hello,
            "start": self.on_start,
            "converse": self.on_converse,
            "adopt": self.on_adopt,
            "stop": self.on_stop,
            "finish": self.on_finish,
            "resolve": self.on_resolve,
            "abandon": self.on_abandon,
        }
        router.add_handler(self.on_message, handle=frames.AGENT_HANDLE, policy=mitogen.core.has_parent_authority)

    def add(self, reader, writer, name, pid, adopted=False):
        """Take a process's descriptors; all is set before the broker thread can see its first output."""
        zygote = Zygote(self, self._next)
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
            zygote = self.zygotes.get(number)
            if zygote is None:
                return caller.answer(frames.pack_payload({"error": {"type": "LookupError", "message": "no zygote %d" % number}}))
            return zygote.forward(caller, payload)
        header, blobs = frames.unpack_payload(payload)
        try:
            self._operations[header["op"]](caller, header, blobs)
        except Exception as error:
            caller.answer(frames.pack_payload({"error": {"type": type(error).__name__, "message": str(error)}}))

    # -- operations

    def on_hello(self, caller, header, blobs):
        zygote = self.zygotes[LOGIN_ZYGOTE]
        if zygote.hello is None and zygote.gone is None:
            zygote.waiting_for_hello.append(caller)
        else:
            caller.answer(zygote.hello or frames.pack_payload(zygote.gone))

    def on_start(self, caller, header, blobs):
        zygote = self.start(header["argv"], header.get("environment"), header.get("cwd"), header.get("tty"))
        caller.answer(frames.pack_payload({"zygote": zygote.number}))

    def start(self, argv, environment, cwd, with_terminal):
        """Run `argv` in a session of its own.

        With a terminal, standard input and standard error are its slave side (a `su` reads the password there), but
        output stays a pipe: frames must come through unchanged.
        """
        variables = dict(os.environ, **environment) if environment else None
        arguments = {"stdout": subprocess.PIPE, "env": variables, "cwd": cwd}
        if with_terminal:
            master, slave = pty.openpty()
            path = os.ttyname(slave)

            def take_terminal():
                os.setsid()
                os.close(os.open(path, os.O_RDWR))

            process = subprocess.Popen(argv, stdin=slave, stderr=slave, preexec_fn=take_terminal, **arguments)
            os.close(slave)
            writer = os.fdopen(os.dup(master), "wb", 0)
            errors = os.fdopen(master, "rb", 0)
        else:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, bufsize=0, **arguments
            )
            writer, errors = process.stdin, process.stderr
        reader = process.stdout
        for file in (reader, writer, errors):
            os.set_blocking(file.fileno(), False)
        zygote = self.add(reader, writer, "zygote.%d" % process.pid, process.pid)
        zygote.process = process
        if with_terminal:
            zygote.terminal = os.dup(writer.fileno())
        stream = mitogen.core.Stream()
        stream.set_protocol(ErrorOutput(zygote))
        stream.name = zygote.stream.name + ".stderr"
        stream.accept(errors, errors)
        stream.receive_side.keep_alive = False
        self.broker.start_receive(stream)
        return zygote

    # -- identities

    def on_resolve(self, caller, header, blobs):
        """Answer with the identity's zygote, or tell the caller to start it; later callers wait for the first one."""
        identity = header["identity"]
        known = self.identities.get(identity)
        if isinstance(known, list):
            return known.append(caller)
        if known is not None and known.gone is None:
            return self.answer_identity(caller, known, known.executable)
        login = self.zygotes[LOGIN_ZYGOTE]
        executable = same_interpreter(header.get("interpreter"))
        if executable and login.gone is None and login.hello is not None:
            return self.answer_identity(caller, login, executable)
        self.identities[identity] = []
        caller.answer(frames.pack_payload({"start": True}))

    @staticmethod
    def answer_identity(caller, zygote, executable):
        header, _ = frames.unpack_payload(zygote.hello)
        caller.answer(frames.pack_payload(dict(header, zygote=zygote.number, executable=executable or header["executable"])))

    def on_abandon(self, caller, header, blobs):
        """The caller who was to start an identity could not: the next one that waits may try."""
        waiting = self.identities.pop(header["identity"], None)
        if isinstance(waiting, list) and waiting:
            self.identities[header["identity"]] = waiting[1:]
            waiting[0].answer(frames.pack_payload({"start": True}))
        if header.get("zygote"):
            self.on_stop(caller, header, blobs)

    def adopted(self, identity, zygote):
        """A zygote said hello: it serves its identity from now on."""
        waiting = self.identities.get(identity)
        self.identities[identity] = zygote
        for caller in waiting if isinstance(waiting, list) else ():
            self.answer_identity(caller, zygote, None)

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
        early = bytes(zygote.output[0])
        zygote.write(b"%010d" % len(compressed) + compressed)
        if early:
            zygote.on_receive(self.broker, early)

    def on_stop(self, caller, header, blobs):
        zygote = self.zygotes.get(header["zygote"])
        if zygote is not None and zygote.gone is None:
            if zygote.process is not None and not zygote.adopted:
                zygote.process.kill()
            zygote.stream.on_disconnect(self.broker)
        caller.answer(frames.pack_payload({}))

    def on_finish(self, caller, header, blobs):
        """Frames of one stream are handled in order, so the answer to a ping tells that all casts before it are done."""
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


def same_interpreter(name):
    """The path of an interpreter when it is the one that runs here, else None.

    The directory counts as well as the file: a virtual environment's python is a link to another one.
    """
    path = name and shutil.which(name)
    if not path or not sys.executable:
        return None
    path = os.path.abspath(path)
    ours = os.path.abspath(sys.executable)
    same_file = os.path.realpath(path) == os.path.realpath(ours)
    same_place = os.path.realpath(os.path.dirname(path)) == os.path.realpath(os.path.dirname(ours))
    return path if same_file and same_place else None


class Countdown:
    """A caller that answers another one when it has been answered often enough."""

    handle = True

    def __init__(self, count, caller):
        self.count = count
        self.caller = caller

    def answer(self, payload):
        self.count -= 1
        if not self.count:
            self.caller.answer(frames.pack_payload({}))


class AgentContext(mitogen.core.ExternalContext):
    """mitogen's child, with the agent in it and without an importer: nothing is ever imported from the controller."""

    def __init__(self, config, pid, socket_, sections):
        super().__init__(config)
        self._login = (pid, socket_)
        self._sections = sections

    def _reap_first_stage(self):
        # mitogen waits for its first stage here; the only child of this process is the zygote.
        pass

    def _setup_importer(self):
        super()._setup_importer()
        sys.meta_path.remove(self.importer)

    def _setup_package(self):
        package = sys.modules["mitogen"]
        package.core = mitogen.core
        mitogen.core.mitogen = package

    def _setup_globals(self):
        super()._setup_globals()
        agent = Agent(self.router, self.master, self._sections)
        pid, socket_ = self._login
        socket_.setblocking(False)
        descriptor = socket_.detach()
        reader, writer = os.fdopen(descriptor, "rb", 0), os.fdopen(os.dup(descriptor), "wb", 0)
        agent.add(reader, writer, "zygote.login", pid, adopted=True)


def run(config, pid, socket_, sections):
    """Run the agent until the controller goes away. `pid`, `socket_`: the login zygote; `sections`: see boot.py."""
    AgentContext(config, pid, socket_, sections).main()
