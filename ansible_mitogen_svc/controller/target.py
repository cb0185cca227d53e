# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A connected target as task workers see it: its agent, its zygotes, and what it is known to have.

Created by `controller/session.py`, one per connection and process, shared by all task workers of that process (any
thread). The byte formats are those of docs/protocol.md.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from ansible_mitogen_svc.controller.payload import Manifest
from ansible_mitogen_svc.controller.workers.gate import fork_gate
from ansible_mitogen_svc.services.answers import Answer, JobRefused, ZygoteLost, read_answer
from ansible_mitogen_svc.services.link import AnswerTimeout, Link, TargetLost
from ansible_mitogen_svc.services.module_cache import kinds_of_code
from ansible_mitogen_svc.spans import MODULE, recorder
from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.wire import frames

AGENT = 0
LOGIN_ZYGOTE = 1
#: Identity of the login zygote.
LOGIN = "login"


@dataclass(frozen=True)
class Hello:
    """What a zygote says of itself when it starts.

    Attributes:
        uid, user, home, shell: of the account it runs as.
        python: version of its interpreter, such as (3, 11, 2).
        executable: path of its interpreter.
        manifests: ids of the manifests it had on disk when it started.
    """

    uid: int
    user: str
    home: str
    shell: str
    python: tuple[int, ...]
    executable: str
    manifests: frozenset[str]

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Hello:
        """:raises ValueError: the header is not that of a hello."""
        try:
            return cls(
                uid=int(header["uid"]),
                user=str(header["user"]),
                home=str(header["home"]),
                shell=str(header.get("shell") or "/bin/sh"),
                python=tuple(int(part) for part in header["python"]),
                executable=str(header["executable"]),
                manifests=frozenset(str(item) for item in header["manifests"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed hello: {error}") from error

    def header(self) -> dict[str, Any]:
        """What `from_header` makes this of, in types that go through any channel."""
        return {**asdict(self), "python": list(self.python), "manifests": sorted(self.manifests)}


@dataclass
class Zygote:
    """A zygote of a target, as this process knows it."""

    number: int
    hello: Hello
    known: set[str] = field(default_factory=set)
    #: Path that ``sys.executable`` shall be for this identity; empty for the hello's.
    executable: str = ""
    #: Files that went there, or that it has as part of a manifest of a job.
    given: set[str] = field(default_factory=set)
    #: Manifests that it has in memory, or soon will.
    warm: set[str] = field(default_factory=set)


#: Identity, its zygote's number, the header of that one's hello (empty: known already), executable, further manifests.
News = tuple[str, int, dict[str, Any], str, list[str]]


#: Seconds after which core would connect anew (ControlPersist), and a firewall may have forgotten our connection.
SILENCE = 60.0
#: Number of a zygote, and a payload for it.
Before = tuple[int, bytes]


class ModuleOffers(Protocol):
    """Where code is offered to targets; see services/module_cache.py."""

    def offer(self, manifest: Manifest, context_id: int) -> None:
        """Let the context fetch the manifest and its files."""


class Target:
    """One connected target.

    Round trips are counted per thread: `round_trips()` gives and resets the number of the calling thread's task.
    """

    def __init__(self, link: Link, context_id: int, key: str, name: str, hello: Hello, offers: ModuleOffers) -> None:
        self.context_id = context_id
        self.key = key
        self.name = name
        self.hello = hello
        self.alive = True
        self._link = link
        self._offers = offers
        #: The module that the latest file of a copy needed, see one_trip.py.
        self.latest_copy = "ansible.legacy.file"
        self._lock = threading.Lock()
        #: When it was last heard of, by the monotonic clock.
        self.answered = time.monotonic()
        #: Questions that were sent there so far, by this process: whatever changes something there is one.
        self.jobs = 0
        #: Zygote that was told to do steps whose answer nobody waits for -> what stands for the latest of them.
        self._told: dict[int, object] = {}
        #: The zygote of the latest job.
        self._latest: Zygote | None = None
        self._zygotes: dict[str, Zygote] = {LOGIN: Zygote(LOGIN_ZYGOTE, hello, set(hello.manifests))}

    def zygote(self, identity: str) -> Zygote | None:
        """The zygote this process knows for an identity."""
        with self._lock:
            return self._zygotes.get(identity)

    def add_zygote(self, identity: str, number: int, hello: Hello, executable: str) -> Zygote:
        """Remember a zygote that the agent has for an identity."""
        with self._lock:
            zygote = self._zygotes[identity] = Zygote(number, hello, set(hello.manifests), executable)
            return zygote

    def alias_zygote(self, identity: str, zygote: Zygote, executable: str) -> Zygote:
        """Let an identity be served by a zygote that is known already, with an executable of its own."""
        with self._lock:
            alias = Zygote(zygote.number, zygote.hello, zygote.known, executable, zygote.given, zygote.warm)
            self._zygotes[identity] = alias
            return alias

    def forget_zygote(self, number: int) -> None:
        """A zygote is dead; the next user of its identities asks the agent for another."""
        with self._lock:
            for identity in [name for name, zygote in self._zygotes.items() if zygote.number == number]:
                del self._zygotes[identity]

    def take_over(self, before: Target) -> None:
        """Know what the parent process knew of the same target when this process was forked from it."""
        self._zygotes.clear()
        for identity, old in before._zygotes.items():
            copy = self._numbered(old.number)
            if copy is None:
                copy = Zygote(old.number, old.hello, set(old.known), given=set(old.given), warm=set(old.warm))
            self._zygotes[identity] = replace(copy, executable=old.executable)

    def _numbered(self, number: int) -> Zygote | None:
        """A zygote by its number, under whichever of its identities."""
        return next((zygote for zygote in self._zygotes.values() if zygote.number == number), None)

    def news(self, before: Target | None) -> list[News]:
        """What this forked process has learned, for `learn` in its parent.

        :param before: the parent's object, as it was when this process was forked.
        """
        found: list[News] = []
        for identity, zygote in self._zygotes.items():
            old = before._zygotes.get(identity) if before is not None else None
            if old is None or old.number != zygote.number:
                manifests = zygote.known - zygote.hello.manifests
                found.append((identity, zygote.number, zygote.hello.header(), zygote.executable, sorted(manifests)))
            elif zygote.known - old.known:
                found.append((identity, zygote.number, {}, zygote.executable, sorted(zygote.known - old.known)))
        return found

    def learn(self, news: Iterable[News]) -> None:
        """Take what `news` gave in a forked worker."""
        self.answered = time.monotonic()
        with self._lock:
            for identity, number, header, executable, manifests in news:
                zygote = self._numbered(number)
                if zygote is None and header:
                    hello = Hello.from_header(header)
                    zygote = Zygote(number, hello, set(hello.manifests))
                if zygote is not None:
                    zygote.known.update(manifests)
                    if header:
                        self._zygotes[identity] = replace(zygote, executable=executable)

    def call(
        self, number: int, header: Mapping[str, Any], blobs: Sequence[bytes] = (), timeout: float | None = None
    ) -> Answer:
        """Ask a zygote (or the agent, number 0) and wait for the answer.

        :param timeout: seconds, None waits.
        :raises TargetLost: the connection ended.
        :raises ZygoteLost: the zygote died.
        :raises JobRefused: it answered with an error.
        :raises AnswerTimeout: `timeout` passed.
        """
        round_trips.count += 1
        self.count_job()
        pending = self._link.ask(self.context_id, frames.pack_target(number, frames.pack_payload(header, blobs)))
        with fork_gate.blocking():
            data = pending.get(timeout)
        self.answered = time.monotonic()
        return read_answer(data)

    def was_heard_of(self, is_moving: Callable[[Target, float], bool]) -> bool:
        """Whether it has answered lately, or something is on its way there; `is_moving`: `TaskSession.is_moving`."""
        return time.monotonic() - self.answered < SILENCE or is_moving(self, SILENCE)

    def still_answers(self, seconds: float, is_moving: Callable[[Target, float], bool]) -> bool:
        """Whether something can be asked there: after a long silence that is tried, for at most `seconds`.

        :param is_moving: `TaskSession.is_moving`; behind a file on a slow link an answer may take longer than that.
        """
        if self.was_heard_of(is_moving):
            return True
        try:
            self.call(LOGIN_ZYGOTE, {"op": "ping"}, timeout=seconds)
        except (TargetLost, AnswerTimeout):
            return False
        except (ZygoteLost, JobRefused):
            pass  # which is an answer
        return True

    def count_job(self) -> None:
        """Something is about to be done there."""
        with self._lock:
            self.jobs += 1

    def chain(self, first: tuple[int, bytes], second: tuple[int, bytes]) -> Answer:
        """Have one zygote do something, then another one something else, in one round trip.

        :param first, second: number of the zygote, and payload.
        :returns: the second's answer.
        :raises ZygoteLost: see there for which of them; otherwise as `call`.
        """
        header = {"op": "chain", "zygotes": [first[0], second[0]]}
        return self.call(AGENT, header, [first[1], second[1]])

    def cast(self, number: int, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Tell a zygote something without waiting; order with later calls to the same zygote is kept."""
        self._link.tell(self.context_id, frames.pack_target(number, frames.pack_payload(header, blobs)))

    def cast_steps(self, number: int, steps: Sequence[Sequence[Any]]) -> None:
        """Tell a zygote to carry out steps without waiting; `settle` waits for them."""
        self.cast(number, {"op": "steps", "steps": steps})
        self._told[number] = object()

    def settle(self, by_others: bool = False) -> None:
        """Wait until the steps of `cast_steps` are done, also those that another thread is waiting for already.

        :param by_others: the login user's zygote may have been told something by another process.
        """
        told = dict(self._told)
        if by_others:
            told.setdefault(LOGIN_ZYGOTE, None)
        for number, latest in told.items():
            with contextlib.suppress(ZygoteLost, JobRefused, TargetLost):
                self.call(number, {"op": "steps", "steps": []})
            with self._lock:
                if self._told.get(number) is latest:
                    self._told.pop(number, None)

    @property
    def login_number(self) -> int:
        """Number of the login user's zygote."""
        return LOGIN_ZYGOTE

    def ensure_code(self, zygote: Zygote, manifest: Manifest) -> None:
        """See to it that a run of `manifest` will find its code.

        The first push goes to a zygote with an empty store and carries everything; otherwise only the manifest is
        named, and the zygote asks for what it lacks (see docs/protocol.md).
        """
        self._offers.offer(manifest, self.context_id)
        self._latest = zygote
        if manifest.id not in zygote.warm:
            zygote.given.update(manifest.files)
            zygote.warm.add(manifest.id)
        if manifest.id in zygote.known:
            counters.add("module_cache", "hits")
            return
        with self._lock:
            if manifest.id in zygote.known:
                counters.add("module_cache", "hits")
                return
            counters.add("module_cache", "misses")
            if not zygote.known:
                self._push(zygote, manifest, manifest.files)
            zygote.known.add(manifest.id)

    def give_ahead(self, manifest: Manifest) -> bool:
        """Give the zygote that had the latest job what a coming one may run; False while there was no job.

        :raises Exception: the target is lost.
        """
        zygote = self._latest
        if zygote is None or manifest.id in zygote.warm:
            return zygote is not None
        self._offers.offer(manifest, self.context_id)
        with self._lock:
            if manifest.id in zygote.warm:
                return True
            zygote.warm.add(manifest.id)
            if manifest.id in zygote.known:
                self.cast(zygote.number, {"op": "recall", "manifest": manifest.id})
            else:
                self._push(zygote, manifest, [digest for digest in manifest.files if digest not in zygote.given])
                zygote.known.add(manifest.id)
        return True

    def _push(self, zygote: Zygote, manifest: Manifest, digests: Iterable[str]) -> None:
        """Send a manifest and those of its files."""
        files = {digest: manifest.files[digest] for digest in digests}
        self.cast(
            zygote.number,
            {"op": "install", "manifest": manifest.id, "sha256": list(files)},
            [manifest.text, *files.values()],
        )
        zygote.given.update(files)
        kinds = kinds_of_code(manifest.id, manifest.text)
        for digest, blob in {manifest.id: manifest.text, **files}.items():
            counters.add("module_cache", kinds[digest], amount=len(blob))

    def run(
        self,
        zygote: Zygote,
        header: Mapping[str, Any],
        blobs: Sequence[bytes],
        before: Before | None = None,
        pair: tuple[Mapping[str, Any], bytes] | None = None,
    ) -> Answer:
        """`call` for a job that runs on the target, with its seconds counted.

        :param before: what another zygote does before the job starts.
        :param pair: condition and payload of a second job.
        """
        if pair is not None:
            header, blobs = {"op": "pair", "when": pair[0]}, [frames.pack_payload(header, blobs), pair[1]]
        started = time.monotonic()
        try:
            if before is not None:
                job = zygote.number, frames.pack_payload(header, blobs)
                return self.chain(before, job)
            return self.call(zygote.number, header, blobs)
        finally:
            counters.add("seconds", "module", amount=time.monotonic() - started)
            recorder.waited(MODULE, started)


class _RoundTrips(threading.local):
    count = 0

    def take(self) -> int:
        """Round trips of this thread since the last time."""
        count, self.count = self.count, 0
        return count


#: Round trips of the calling thread's task.
round_trips = _RoundTrips()
