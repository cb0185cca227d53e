# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which zygote serves which identity (become method and user, or another interpreter), and who starts it.

Shipped to hosts; used by agent.py in the agent's process, all of it in the broker thread, so nothing here blocks.
"""

from __future__ import annotations

import time

from ansible_mitogen_svc.target.starting import same_interpreter
from ansible_mitogen_svc.target.zygote_stream import LOGIN_ZYGOTE, Nobody
from ansible_mitogen_svc.wire import frames

#: Zygotes beside the login user's when the controller names no limit.
LIMIT = 20


class Starting:
    """An identity that a caller starts: since when, and who waits for it."""

    def __init__(self):
        self.since = time.monotonic()
        self.waiting = []


class Identities:
    """The identities of a host. `zygotes`: all of the agent's, {number: zygote}."""

    def __init__(self, zygotes):
        self._zygotes = zygotes
        #: {identity: its zygote, or its Starting while a caller starts it}
        self._known = {}

    def on_resolve(self, caller, header, blobs):
        """Answer with the identity's zygote, or tell the caller to start it; later callers wait for the first one.

        Whoever was to start it and has not within the caller's `patience` (seconds) is taken for dead.
        """
        identity = header["identity"]
        known = self._known.get(identity)
        if isinstance(known, Starting):
            if time.monotonic() - known.since < header["patience"]:
                return known.waiting.append(caller)
            known.since = time.monotonic()
            return caller.answer(frames.pack_payload({"start": True}))
        if known is not None and known.gone is None and not known.leaving:
            return self._answer(caller, known, known.executable)
        login = self._zygotes[LOGIN_ZYGOTE]
        executable = same_interpreter(header.get("interpreter"), header.get("shell"))
        if executable and login.gone is None and login.hello is not None:
            return self._answer(caller, login, executable)
        self._known[identity] = Starting()
        recycled = self._make_room(header.get("limit", LIMIT))
        caller.answer(frames.pack_payload({"start": True, "recycled": recycled}))

    def serve(self, identity, zygote):
        """A zygote said hello: it serves its identity from now on."""
        starting = self._known.get(identity)
        self._known[identity] = zygote
        for caller in starting.waiting if isinstance(starting, Starting) else ():
            self._answer(caller, zygote, None)

    def abandon(self, identity):
        """Whoever was to start it could not: those that wait ask again, and the first one may try.

        None is chosen here: it may have given up.
        """
        starting = self._known.get(identity)
        if isinstance(starting, Starting):
            del self._known[identity]
            for waiting in starting.waiting:
                waiting.answer(frames.pack_payload({"again": True}))

    def forget(self, zygote):
        """Another one is to serve what this zygote served."""
        if self._known.get(zygote.identity) == zygote:
            del self._known[zygote.identity]

    @staticmethod
    def _answer(caller, zygote, executable):
        header = frames.unpack_payload(zygote.hello)[0]
        found = dict(header, zygote=zygote.number, executable=executable or header["executable"])
        caller.answer(frames.pack_payload(found))

    def _make_room(self, limit):
        """Let idle zygotes go, the ones longest unused first, until one more will be no more than `limit`; how many.

        The login zygote does not count. With more than `limit` in use at once there are more.
        """
        alive = [each for each in self._zygotes.values() if each.gone is None and not each.leaving]
        idle = sorted((each for each in alive if each.expendable), key=lambda each: each.used)
        leaving = idle[: max(0, len(alive) - limit)]
        for zygote in leaving:
            zygote.retire(Nobody())
        return len(leaving)
