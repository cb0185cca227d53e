# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a zygote knows of manifests: their bundles in memory, on disk, being built or being fetched.

Used by the zygote's single thread; everything slow happens in builders or at the agent, and the owner is called back.

Theory of operation
1. `find` answers at once: a bundle from memory or disk, or None while the manifest is on its way, or raises
   ManifestLost.
2. A manifest on its way goes through: text known (offered, on disk, or fetched) -> built (a forked builder) -> when the
   builder lacks sources, those are fetched and it is built again. What was asked for once and did not come is lost.
3. The first bundle of all holds the code of every file, since the base set is imported from it. Other builds
   wait until that base set's signature is known, and then leave out what it covers.
4. Memory is bounded: bundles used least recently are dropped above LIMIT bytes and read from disk again.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict, deque

from ansible_mitogen_svc.target import builder, process
from ansible_mitogen_svc.target.bundle import Bundle, open_bundle
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Optional, Protocol

    from ansible_mitogen_svc.target.nurseries import Nurseries
    from ansible_mitogen_svc.target.store import Store

    Signature = Mapping[str, Optional[str]]

    class Owner(Protocol):
        """What the jobs do for their catalogue."""

        def ask(self, digests: list[str], answered: Callable[[dict[str, bytes]], None]) -> None: ...
        def base_built(self, bundle: Bundle) -> None: ...
        def pump(self) -> None: ...

LIMIT = 32 << 20
BUILDERS = 2
"""How many builders run at once."""


class ManifestLost(LookupError):
    """A manifest or a file of it can be had from nowhere, or cannot be built; says which and why."""


class Arrival:
    """A manifest on its way."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.text: bytes | None = None
        self.offered: dict[str, bytes] = {}
        self.asked: set[str] = set()
        self.fetching = False
        self.building = False
        self.whole = False
        """Build the code of all files, as for a base set."""
        self.trouble: str | None = None


class Catalogue:
    """The manifests of one zygote."""

    def __init__(self, store: Store, nurseries: Nurseries, owner: Owner) -> None:
        self.store = store
        self._nurseries = nurseries
        self._owner = owner
        self._bundles: OrderedDict[str, Bundle] = OrderedDict()
        self._arrivals: dict[str, Arrival] = {}
        self._queue: deque[Arrival] = deque()
        self._builds: dict[int, tuple[Arrival, int, str]] = {}
        self._built = 0
        self._base: Arrival | None = None

    def statistics(self) -> dict[str, int]:
        """Manifests in memory and their bytes, manifests on their way, and builds since the start."""
        return {'manifests': len(self._bundles), 'bytes': sum(len(held) for held in self._bundles.values()),
                'arriving': len(self._arrivals), 'builds': self._built}

    def offer(self, identity: str, text: bytes, files: Mapping[str, bytes]) -> None:
        """Take what the controller pushed; starts a build unless the manifest is known."""
        if self.recall(identity) is not None:
            return
        arrival = self._arrivals.get(identity)
        if arrival is None or arrival.trouble is not None:
            arrival = self._arrivals[identity] = Arrival(identity)
        arrival.text = text
        arrival.offered.update(files)
        self._advance(arrival)

    def find(self, identity: str, whole: bool = False) -> Bundle | None:
        """Return a bundle; None while it is on its way (`Owner.pump` is called when that ends). Raises
        ManifestLost.

        `whole`: a bundle with the code of every file is needed.
        """
        bundle = self.recall(identity, whole)
        if bundle is not None:
            return bundle
        arrival = self._arrivals.get(identity)
        if arrival is None:
            if not frames.is_sha256(identity):
                raise ManifestLost('not the id of a manifest')
            arrival = self._arrivals[identity] = Arrival(identity)
            arrival.whole = whole
            self._advance(arrival)
        if arrival.trouble is not None:
            # Told to everybody who waits in this round; a later job tries anew.
            raise ManifestLost(arrival.trouble)
        arrival.whole = arrival.whole or whole
        return None

    def forget_troubles(self) -> None:
        """Drop the manifests that were lost, after every waiting job was told."""
        for identity in [name for name, arrival in self._arrivals.items() if arrival.trouble is not None]:
            del self._arrivals[identity]

    def base_ended(self) -> None:
        """The base set's signature became known, or will never be: let other builds go on."""
        self._base = None
        self._build_next()

    def recall(self, identity: str, whole: bool = False) -> Bundle | None:
        """Return a usable bundle from memory or disk."""
        if not self.store.is_ours():
            return None  # the builder will say so, and the store move
        bundle = self._bundles.get(identity)
        if bundle is None:
            bundle = open_bundle(identity, self.store.read_bundle(identity)) if frames.is_sha256(identity) else None
            if bundle is None or not self.store.zip_is(identity, bundle.zip_digest):
                return None
            if not self._is_enough(bundle, whole):
                return None
            self._keep(bundle)
        elif not self._is_enough(bundle, whole):
            return None
        elif not os.path.exists(self.store.zip_path(identity)):
            del self._bundles[identity]
            return None
        else:
            self._bundles.move_to_end(identity)
        return bundle

    def _is_enough(self, bundle: Bundle, whole: bool) -> bool:
        if bundle.covers({}):
            return True
        signature = None if whole else self._nurseries.signature_for(bundle.files)
        return signature is not None and bundle.covers(signature)

    def _keep(self, bundle: Bundle) -> None:
        self._bundles[bundle.identity] = bundle
        self._bundles.move_to_end(bundle.identity)
        total = sum(len(held) for held in self._bundles.values())
        while total > LIMIT and len(self._bundles) > 1:
            total -= len(self._bundles.popitem(last=False)[1])

    # A manifest's way

    def _advance(self, arrival: Arrival) -> None:
        if arrival.fetching or arrival.building or arrival in self._queue:
            return
        if arrival.text is None:
            arrival.text = self.store.blob(arrival.identity)
        if arrival.text is None:
            self._fetch(arrival, [arrival.identity])
        else:
            self._queue.append(arrival)
            self._build_next()

    def _fetch(self, arrival: Arrival, digests: list[str]) -> None:
        """Ask the agent, once per digest; what does not come with the answer is lost."""
        lost = [digest for digest in digests if digest in arrival.asked]
        if lost:
            self._give_up(arrival, f'{len(lost)} files of the module could not be had, the first is {lost[0]}')
            return
        arrival.asked.update(digests)
        arrival.fetching = True

        def answered(files: dict[str, bytes]) -> None:
            arrival.fetching = False
            if arrival.text is None:
                arrival.text = files.get(arrival.identity)
            arrival.offered.update(files)
            self._advance(arrival)

        self._owner.ask(digests, answered)

    def _build_next(self) -> None:
        while self._queue and len(self._builds) < BUILDERS and self._base is None and not self._nurseries.starting():
            arrival = self._queue.popleft()
            if arrival.trouble is None and self.recall(arrival.identity, arrival.whole) is not None:
                # While the base set was imported nobody could tell that the store's bundle is enough.
                self._arrivals.pop(arrival.identity, None)
                self._owner.pump()
            else:
                self._build(arrival)

    def _build(self, arrival: Arrival) -> None:
        """Fork a builder; its answer is in an anonymous file when it has exited."""
        signature: Signature | None = None
        try:
            assert arrival.text is not None
            files = frames.unpack_manifest(arrival.identity, arrival.text)
            if not arrival.whole:
                signature = self._nurseries.signature_for(files)
        except frames.FrameError as error:
            arrival.text = None
            if arrival.identity in arrival.asked:
                self._give_up(arrival, str(error))
            else:
                self._advance(arrival)
            return
        try:
            answer = process.anonymous_file()
            pid = self._fork(arrival, answer, signature or {})
        except OSError as error:
            self._give_up(arrival, f'{type(error).__name__}: {error}')
            return
        if signature is None:
            self._base = arrival
        arrival.building = True
        self._builds[pid] = (arrival, answer, self.store.root)
        self._built += 1

    def _fork(self, arrival: Arrival, answer: int, signature: Signature) -> int:
        try:
            pid = os.fork()
        except OSError:
            os.close(answer)
            raise
        if not pid:
            self._be_builder(arrival, answer, signature)
        return pid

    def _be_builder(self, arrival: Arrival, answer: int, signature: Signature) -> None:
        """The builder's whole life. Its answer: one letter, then the bundle, or JSON."""
        try:
            process.reset_signals()
            process.close_all_but([answer])
            process.set_title('svc-builder')
            assert arrival.text is not None
            try:
                data = b'B' + builder.build(self.store, arrival.identity, arrival.text, arrival.offered, signature)
            except builder.SourcesMissing as error:
                data = b'M' + json.dumps(error.digests).encode()
            except OSError as error:
                data = b'O' + json.dumps(f'{type(error).__name__}: {error}').encode()
            except Exception as error:
                data = b'E' + json.dumps(f'{type(error).__name__}: {error}').encode()
            with open(answer, 'wb', closefd=False) as file:
                file.write(data)
        finally:
            os._exit(0)

    def child_exited(self, pid: int) -> bool:
        """Take the answer of an exited builder; False when the pid is not one of them."""
        if pid not in self._builds:
            return False
        arrival, answer, root = self._builds.pop(pid)
        data = process.read_whole(answer)
        os.close(answer)
        arrival.building = False
        bundle = open_bundle(arrival.identity, data[1:]) if data[:1] == b'B' else None
        if bundle is not None:
            self._arrivals.pop(arrival.identity, None)
            self._keep(bundle)
            if arrival is self._base:
                self._owner.base_built(bundle)
            self._build_next()
            self._owner.pump()
            return True
        if arrival is self._base:
            self._base = None
        if data[:1] == b'M':
            self._fetch(arrival, json.loads(data[1:]))
        elif data[:1] == b'O' and root != self.store.root:
            self._advance(arrival)  # another one has said so, and the store has moved
        elif data[:1] == b'O' and not (self.store.ephemeral and self.store.is_ours()):
            # A full disk, a quota, a home that went away: core would have used the temporary directory all along.
            try:
                self.store.relocate()
            except OSError as error:
                self._give_up(arrival, f'{json.loads(data[1:])}; {type(error).__name__}: {error}')
            else:
                self._advance(arrival)
        else:
            self._give_up(arrival, json.loads(data[1:]) if data else 'the process that compiles modules was killed')
        self._build_next()
        return True

    def _give_up(self, arrival: Arrival, trouble: str) -> None:
        arrival.trouble = trouble
        self._owner.pump()
