# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A zygote as its agent sees it: a stream of frames, the calls it has not answered, and how it ended.

Shipped to hosts; runs in the agent's process, all of it in the broker thread, so nothing here blocks. See agent.py
for how it is used and docs/protocol.md for the frames.
"""

from __future__ import annotations

import os
import time

import mitogen.core
from mitogen.core import Message

from ansible_mitogen_svc.wire import frames
from ansible_mitogen_svc.wire.parcel import InPieces

#: Written by the first stage of a started zygote, see services/bootstrap.py.
READY = b"SVC-ZYGOTE\n"
STDERR_KEPT = 2048
LOGIN_ZYGOTE = 1


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

    def parcel(self, pieces):
        """The answer, for who may send it, as the broker thread alone does."""
        answer = Parcel(dst_id=self.context_id, handle=self.handle, enc=Message.ENC_BIN)
        answer.put_together(pieces)
        return answer


class Parcel(InPieces, Message):
    """A message with much data."""


class ZygoteStream(mitogen.core.Protocol):
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
        self.pid = 0
        self.terminal = None
        self.error_side = None
        self.hello = None
        self.identity = None
        self.executable = None
        self.waiting_for_hello = []
        self.waiting_for_end = []
        self.output = [bytearray(), bytearray()]
        self.errors = b""
        self.conversation = None
        self.adopted = False
        self.ready = False
        #: What it is booted with, for as long as its terminal may still change what it is sent.
        self.boot = None
        #: How it ended, as callers are told; None while it lives.
        self.gone: dict[str, object] | None = None
        #: It was told to end, and gets nothing more.
        self.leaving = False
        #: Another one serves its identity: it ends when it has answered what it was asked.
        self.replaced = False
        #: Calls that another zygote has to answer first.
        self.expected = 0
        self.used = 0.0
        self._seen = b""

    # -- towards the zygote

    def on_transmit(self, broker):
        self._writer.on_transmit(broker)

    def write(self, data):
        if self.gone is None:
            self._writer.write(data)

    def forward(self, caller, payload):
        if self.gone is not None or self.leaving:
            # The call was never delivered: whoever made it may safely make it again elsewhere.
            gone = self.gone or {"lost": "zygote", "rc": None, "signal": None, "stderr": ""}
            return caller.answer(frames.pack_payload(dict(gone, undelivered=True)))
        self.used = time.monotonic()
        number = 0
        if caller.handle:
            self._next_id = number = self._next_id % 0x7FFFFFFF + 1
            self._pending[number] = caller
        self.write(frames.pack_frame(number, payload))

    def retire(self, caller):
        """Let the zygote end, and tell `caller` when it and all that it started have ended."""
        self.waiting_for_end.append(caller)
        self.leaving = True
        self.write(frames.pack_frame(0, frames.pack_payload({"op": "retire"})))

    def retire_if_replaced(self):
        """End now if nothing is to be waited for."""
        if self.replaced and self.idle and not self.leaving and self.gone is None:
            self.retire(Nobody())

    @property
    def idle(self):
        """Whether nobody waits for an answer of it, nor is about to."""
        return not self._pending and not self.expected

    @property
    def expendable(self):
        """Whether it can be sent away: another one in its place would do as well."""
        alive = self.number != LOGIN_ZYGOTE and self.gone is None and not self.leaving
        return alive and self.hello is not None and self.idle

    # -- from the zygote

    def on_receive(self, broker, data):
        if not self.adopted:
            # The ready line may come together with the last words of the become command, before the adoption.
            self._seen = (self._seen + data)[-65536:]
            self.output[0] += data
            return self.speak()
        if not self.ready:
            self._seen = (self._seen + data)[-65536:]
            before, marker, data = self._seen.partition(READY)
            if not marker:
                return
            self.ready = True
            if self.boot is not None:
                self.write(self.boot)
                self.boot = None
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
            self.retire_if_replaced()
        elif self.hello is None:
            self.hello = payload
            if self.identity:
                self.agent.identities.serve(self.identity, self)
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
            status = self.gone["rc"] if self.gone is not None else None
            caller.answer(frames.pack_payload({"closed": self.gone is not None, "rc": status}, blobs))

    # -- the end

    def on_disconnect(self, broker):
        super().on_disconnect(broker)
        self.drain_errors()
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None
        self.gone = dict(self.collect(attempts=5), lost="zygote", stderr=self.errors.decode("utf-8", "replace"))
        lost = frames.pack_payload(self.gone)
        pending, self._pending = list(self._pending.values()) + self.waiting_for_hello, {}
        self.waiting_for_hello = []
        for caller in pending:
            caller.answer(lost)
        for caller in self.waiting_for_end:
            caller.answer(frames.pack_payload({}))
        self.speak()

    def drain_errors(self):
        """Take its last words: the end of its output may be seen before what it wrote on the other descriptor."""
        if self.error_side is None:
            return
        try:
            while True:
                data = self.error_side.read(self.read_size)
                if not data:
                    return
                self.on_error_output(data)
        except BlockingIOError:
            return

    def collect(self, attempts):
        """Reap the process and say how it ended; it may need an instant after its output closed."""
        returncode = self.returncode()
        if returncode is None and attempts:
            time.sleep(0.002)
            return self.collect(attempts - 1)
        if returncode is not None and returncode < 0:
            return {"rc": None, "signal": -returncode}
        return {"rc": returncode, "signal": None}

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

    def was_reaped(self):
        """Whether nothing is left of the process, not even its exit status."""
        if self.gone is not None and (self.gone["rc"], self.gone["signal"]) != (None, None):
            return True
        if self.process is not None:
            return self.process.poll() is not None
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except OSError:
            return True

    def on_shutdown(self, broker):
        # The end of its input is what makes a zygote leave.
        self.stream.on_disconnect(broker)


def reap(zygotes, seconds):
    """Wait for the ends of zygotes whose input has ended, so long at most.

    Who exits first leaves them to process 1, which in many a container waits for nobody: one zombie for each run.
    """
    deadline = time.monotonic() + seconds
    left = [zygote for zygote in zygotes if not zygote.was_reaped()]
    while left and time.monotonic() < deadline:
        time.sleep(0.002)
        left = [zygote for zygote in left if not zygote.was_reaped()]


class ErrorOutput(mitogen.core.Protocol):
    """Standard error (or the terminal) of a started process."""

    def __init__(self, zygote):
        self.zygote = zygote

    def on_receive(self, broker, data):
        self.zygote.on_error_output(data)


class Nobody:
    """A caller that wants no answer."""

    handle = None

    def answer(self, payload):
        pass


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


class Sequel:
    """A caller that goes on to something else after a good answer; a bad one is passed on, marked as the first's.

    `second` is the zygote that it goes on to, which must not be sent away meanwhile; None when there is none.
    """

    handle = True

    def __init__(self, caller, second, then):
        self.caller = caller
        self.second = second
        self.then = then
        if second is not None:
            second.expected += 1

    def answer(self, payload):
        if self.second is not None:
            self.second.expected -= 1
        header, blobs = frames.unpack_payload(payload)
        if "error" in header or "lost" in header:
            self.caller.answer(frames.pack_payload(dict(header, first=True), blobs))
        else:
            self.then()
