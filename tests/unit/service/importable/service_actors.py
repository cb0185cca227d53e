# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Services under test. Imported by the tests, and by children (from the tests' process, through mitogen's importer)."""

from __future__ import annotations

import os
import sys
import threading
import time

import mitogen.core

from ansible_mitogen_svc.service import (
    Activator,
    AllowAny,
    AllowParents,
    DeduplicatingInvoker,
    Policy,
    Raw,
    RegisteredContexts,
    SerializedInvoker,
    Service,
    arg_spec,
    child_pool,
    deadline,
    expose,
    no_reply,
    not_deduplicated,
)


class Never(Policy):
    """Agrees with nobody."""

    def is_authorized(self, service, msg):
        return False


class Plain(Service):
    """One method for each thing a method can do."""

    def __init__(self, router):
        super().__init__(router)
        self.noted = []
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.shutdowns = []

    @expose(policy=AllowAny())
    @arg_spec({"number": int})
    def double(self, number):
        return 2 * number

    @expose(policy=AllowAny())
    def echo(self, value):
        return value

    @expose(policy=AllowAny())
    def fail(self, text="out of order: %s"):
        raise LookupError(text)

    @expose(policy=AllowAny())
    def exit(self):
        raise SystemExit(3)

    @expose(policy=AllowParents())
    def for_parents(self):
        return "welcome"

    @expose(policy=AllowAny())
    @expose(policy=Never())
    def stacked(self):
        return "never"

    @expose(policy=Never())
    @expose(policy=AllowAny())
    def stacked_the_other_way(self):
        return "never"

    @expose(policy=AllowAny())
    @expose(policy=AllowAny())
    def stacked_in_agreement(self):
        return "always"

    @expose(policy=AllowAny())
    @no_reply()
    def note(self, text):
        self.noted.append(text)
        return "nobody hears this"

    @expose(policy=AllowAny())
    def sender_of(self, msg):
        return msg.src_id if msg is not None else None

    @expose(policy=AllowAny())
    def without_msg(self):
        msg = "a local variable called msg is not a wish for the message"
        return len(msg)

    @expose(policy=AllowAny())
    def wait(self):
        self.entered.release()
        self.gate.wait(20)
        return "through"

    @expose(policy=AllowAny())
    @deadline(0.2)
    def impatient(self):
        self.gate.wait(20)

    @expose(policy=AllowAny())
    def whereabouts(self):
        return {
            "pid": os.getpid(), "thread": threading.current_thread().name, "python": list(sys.version_info[:2]),
            "module": type(self).__module__,
        }

    @expose(policy=AllowAny())
    def raw(self, size):
        return Raw(b"\x00\xff" * (size // 2))

    @expose(policy=AllowAny())
    def blob(self, size):
        return mitogen.core.Blob(b"\x00\xff" * (size // 2))

    @expose(policy=AllowAny())
    def unpicklable(self):
        return threading.Lock()

    def hidden(self):
        return "not exposed"

    def on_shutdown(self):
        self.shutdowns.append([thread.name for thread in threading.enumerate() if "service-pool" in thread.name])


class Rendezvous(Service):
    """Its method returns only when several calls of it run at the same time."""

    def __init__(self, router, parties):
        super().__init__(router)
        self.barrier = threading.Barrier(parties)

    @expose(policy=AllowAny())
    def meet(self):
        self.barrier.wait(20)
        return True


class Serialized(Service):
    """Notes who calls, in which thread, and whether two calls ever overlapped."""

    invoker_class = SerializedInvoker

    def __init__(self, router):
        super().__init__(router)
        self.calls = []
        self.inside = 0
        self.overlaps = 0
        self.pool = None

    @expose(policy=AllowAny())
    def append(self, caller, number, pause=0.0):
        self.inside += 1
        self.overlaps += self.inside > 1
        self.calls.append((caller, number, threading.current_thread().name))
        time.sleep(pause)
        self.inside -= 1

    @expose(policy=AllowAny())
    def listing(self):
        return [list(call) for call in self.calls]

    @expose(policy=AllowAny())
    def call_itself(self):
        from ansible_mitogen_svc.service import call

        return call(self.pool, type(self), "listing")


class Expensive(Service):
    """Deduplicated; counts its executions."""

    invoker_class = DeduplicatingInvoker

    def __init__(self, router):
        super().__init__(router)
        self.executions = []
        self.gate = threading.Event()
        self.gate.set()
        self.pool = None

    @expose(policy=AllowAny())
    def produce(self, key=None, **more):
        self.executions.append((key, more))
        self.gate.wait(20)
        return {"key": key, "execution": len(self.executions)}

    @expose(policy=AllowAny())
    def sized(self, size, number=0):
        self.executions.append((size, number))
        return mitogen.core.Blob(b"x" * size)

    @expose(policy=AllowAny())
    def raw(self, size):
        self.executions.append(size)
        return Raw(b"r" * size)

    @expose(policy=AllowAny())
    def fail(self, key):
        self.executions.append(key)
        self.gate.wait(20)
        raise LookupError(f"execution {len(self.executions)} failed")

    @expose(policy=AllowParents())
    def for_parents(self, key):
        self.executions.append(key)
        return "secret"

    @expose(policy=RegisteredContexts("name"))
    def offered(self, name):
        self.executions.append(name)
        return "content of " + name

    @expose(policy=AllowAny())
    @not_deduplicated()
    def count(self, msg):
        return len(self.executions)

    @expose(policy=AllowAny())
    def recursive(self):
        from ansible_mitogen_svc.service import call

        return call(self.pool, type(self), "recursive")


class Streams(Service):
    """Sends messages of its own before it answers."""

    @expose(policy=AllowAny())
    def stream(self, sender, count):
        for number in range(count):
            sender.send(number)
        return count


class Offers(Service):
    """Gives a resource to the contexts it was registered for."""

    @expose(policy=RegisteredContexts("path"))
    @arg_spec({"path": str})
    def fetch(self, path):
        return "content of " + path

    @expose(policy=RegisteredContexts("paths", each=True))
    def fetch_all(self, paths):
        return ["content of " + path for path in paths]


class Listener(Service):
    """Notes the events of whatever is in its Select."""

    def __init__(self, router):
        super().__init__(router)
        self.events = []
        self.arrived = threading.Semaphore(0)

    def on_message(self, event):
        dead = isinstance(event.data, mitogen.core.Message) and event.data.is_dead
        data = event.data.unpickle() if isinstance(event.data, mitogen.core.Message) and not dead else event.data
        self.events.append((event.source, "dead" if dead else data))
        self.arrived.release()
        if data == "raise":
            raise LookupError("on_message failed")


class Nicknames(Activator):
    """Understands one more name."""

    def find_class(self, service_name):
        return Plain if service_name == "nickname" else super().find_class(service_name)


@mitogen.core.takes_router
def use_nicknames(router):
    """In a child: a pool that understands it, of three threads."""
    return child_pool(router, activator=Nicknames(), size=3).size


# -- what tests have children do -------------------------------------------------------------------------


@mitogen.core.takes_router
def call_master(service, method, times=1, router=None, **kwargs):
    """Call the master with mitogen's own client; values, or the errors' texts, and whether our package was imported."""
    master = mitogen.core.Context(router, 0)
    answers = []
    for _ in range(times):
        try:
            answers.append(master.call_service(service, method, **kwargs))
        except mitogen.core.Error as exc:
            answers.append(f"error: {exc}")
    return answers if times > 1 else answers[0]


@mitogen.core.takes_router
def call_master_at_once(service, method, argument, values, router=None, **kwargs):
    """Start one call per value before reading any answer; the answers in the order of the calls."""
    master = mitogen.core.Context(router, 0)
    receivers = [master.call_service_async(service, method, **dict(kwargs, **{argument: value})) for value in values]
    answers = []
    for receiver in receivers:
        try:
            answers.append(receiver.get().unpickle())
        except mitogen.core.Error as exc:
            answers.append(f"error: {exc}")
    return answers


@mitogen.core.takes_router
def receive_streams(service, streams, count, router=None):
    """Have *streams* streams sent at once; for each, what had arrived when its call was answered."""
    master = mitogen.core.Context(router, 0)
    receivers = [mitogen.core.Receiver(router) for _ in range(streams)]
    replies = [
        master.call_service_async(service, "stream", sender=receiver.to_sender(), count=count) for receiver in receivers
    ]
    arrived = []
    for index, receiver in enumerate(receivers):
        replies[index].get()
        arrived.append([receiver.get().unpickle() for _ in range(receiver.size())])
    return arrived


@mitogen.core.takes_router
def start_call(service, method, router=None, **kwargs):
    """Start a call of which nobody will read the answer."""
    mitogen.core.Context(router, 0).call_service_async(service, method, **kwargs)


@mitogen.core.takes_router
def send_raw(data, enc, router=None):
    """Send a message of any content to the master's CALL_SERVICE handle; the reply's encoding, its value or error."""
    master = mitogen.core.Context(router, 0)
    receiver = master.send_async(mitogen.core.Message(data=bytes(data), enc=enc, handle=mitogen.core.CALL_SERVICE))
    reply = receiver.get()
    try:
        return reply.enc, reply.decode()
    except mitogen.core.Error as exc:
        return reply.enc, f"error: {exc}"


@mitogen.core.takes_router
def pretend_dead(router=None):
    """Send a dead message to the master's CALL_SERVICE handle."""
    message = mitogen.core.Message.dead("gone", handle=mitogen.core.CALL_SERVICE, dst_id=0)
    router.route(message)


@mitogen.core.takes_router
def replies_until(service, first, second, router=None):
    """Send two calls with one reply handle; everything that came back by the time the second was answered."""
    receiver = mitogen.core.Receiver(router)
    for method, kwargs in (first, second):
        request = (service, method, mitogen.core.Kwargs(kwargs))
        message = mitogen.core.Message.pickled(
            request, handle=mitogen.core.CALL_SERVICE, dst_id=0, reply_to=receiver.handle
        )
        router.route(message)
    answers = [receiver.get().unpickle()]
    time.sleep(0.05)
    while receiver.size():
        answers.append(receiver.get().unpickle())
    return answers


def modules_of_this_package():
    """Which of our modules this process has imported."""
    return sorted(name for name in sys.modules if name.startswith("ansible_mitogen_svc.service"))


@mitogen.core.takes_router
def send_to(sender, values, router=None):
    """Send *values* through a Sender of the master, then close it."""
    for value in values:
        sender.send(value)
    sender.close()


@mitogen.core.takes_router
def describe_failure(service, method, router=None, **kwargs):
    """Call the master with our client; class name, type name, message and traceback of the error."""
    from ansible_mitogen_svc.service import CallFailed, call

    try:
        return call(mitogen.core.Context(router, 0), service, method, deadline=20, **kwargs)
    except CallFailed as exc:
        return type(exc).__name__, exc.type_name, exc.message, exc.traceback_text


@mitogen.core.takes_router
def start_call_with_deadline(service, method, seconds, router=None, **kwargs):
    """Start a call with our client, and do not wait for it."""
    from ansible_mitogen_svc.service import call_async

    call_async(mitogen.core.Context(router, 0), service, method, deadline=seconds, **kwargs)


@mitogen.core.takes_router
def call_many(service, caller, count, router=None):
    """*count* calls of its own method under way at a time; what did not come back as it should."""
    master = mitogen.core.Context(router, 0)
    receivers = [
        master.call_service_async(service, "echo", value=(caller, number)) for number in range(count)
    ]
    wrong = []
    for number, receiver in enumerate(receivers):
        answer = receiver.get().unpickle()
        if answer != (caller, number):
            wrong.append((number, answer))
    return wrong


@mitogen.core.takes_router
def errors_and_values_until(service, first, second, router=None):
    """Like replies_until, for calls of which some fail: reads on until the value of the second has come."""
    receiver = mitogen.core.Receiver(router)
    for method, kwargs in (first, second):
        request = (service, method, mitogen.core.Kwargs(kwargs))
        router.route(mitogen.core.Message.pickled(
            request, handle=mitogen.core.CALL_SERVICE, dst_id=0, reply_to=receiver.handle
        ))
    answers = []
    while not answers or isinstance(answers[-1], str) or receiver.size():
        try:
            answers.append(receiver.get().unpickle())
        except mitogen.core.CallError as exc:
            answers.append(f"error: {exc}")
    return answers
