# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The nurseries of a zygote: which one serves a job, when one is started, and what becomes of their children.

Used by the zygote's single thread; the other ends are nursery.py and child.py.

Theory of operation
1. A nursery serves the manifests that match its signature (loader.py), and is *current* while what it may have looked
   at outside of the payload is unchanged: the directories of sys.path, what decides on them (site_places.py), the cache
   of the dynamic linker, and the places of locales. So a failed import that was remembered, or a package that was
   upgraded, lives no longer than until the next job.
2. A job that finds no current nursery has one started, out of a bundle with the code of all files.
3. A nursery that is no longer current, or one too many, gets no more jobs and is closed when its last one has ended.
4. When a nursery dies its children live on; their answers still come, and only an exit status is lost. A job sent to a
   child that was never made, or that died before it began, goes back to jobs.py.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import OrderedDict

from ansible_mitogen_svc.target import loader, process
from ansible_mitogen_svc.target.account import signature_of
from ansible_mitogen_svc.target.nursery import is_report, start_nursery
from ansible_mitogen_svc.target.site_places import SitePlaces
from ansible_mitogen_svc.target.slots import JobZips, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from ansible_mitogen_svc.target.bundle import Bundle

    class Owner(Protocol):
        """What the jobs do for the nurseries."""

        def watch(self, descriptor: int, ready: Any) -> None: ...
        def unwatch(self, descriptor: int) -> None: ...
        def job_ended(self, slot: Slot, status: int | None) -> None: ...
        def job_not_begun(self, slot: Slot, status: int | None) -> None: ...
        def base_ended(self) -> None: ...

NURSERIES = 3
"""Nurseries kept for different base sets."""

HELD_LIMIT = 16 << 20
"""Bytes of bundles a nursery keeps unmarshalled for its children."""


WATCHED = ('/etc/ld.so.cache', '/usr/lib/locale', '/usr/lib/locale/locale-archive')
"""What changes with libraries and locales."""


def surroundings(places: SitePlaces) -> tuple[Any, ...]:
    """Return what tells that packages, libraries or locales were installed, removed or upgraded."""
    return (places.read_at_start(), *map(signature_of, (*WATCHED, *(path for path in sys.path if path))))


def interpreter() -> Any:
    """Return what tells that the running interpreter was replaced on disk."""
    return signature_of(sys.executable) if sys.executable else None


class NurseryLink:
    """The zygote's end of one nursery."""

    def __init__(self, base: Bundle, zips: JobZips, directory: str | None, places: SitePlaces) -> None:
        self.surroundings = surroundings(places)
        self.base = base
        self.number = zips.take(base.identity)
        """Of the zip whose path the preloaded code carries; the zip is there while it preloads."""
        self.root = zips.path(self.number)
        try:
            self.pid, sock = start_nursery(base, self.root, directory, places)
        except OSError:
            zips.give_back(self.number)
            raise
        self.wire = process.Wire(sock)
        self.signature: Mapping[str, str | None] | None = None
        self.current = True
        self.closed = False
        self.spare: Slot | None = None
        self.slots: dict[int, Slot] = {}
        self._held: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._matches: dict[str, bool] = {}

    def serves(self, bundle: Bundle) -> bool:
        """Say whether jobs of a manifest may run here (only once the signature is known)."""
        if self.signature is None:
            return False
        known = self._matches.get(bundle.identity)
        if known is None:
            known = loader.matches(self.signature, bundle.files)
            self._matches[bundle.identity] = known
        return known

    def fork(self, slot: Slot, theirs: socket.socket) -> None:
        """Have a child made for a slot. Raises OSError."""
        self.slots[slot.number] = slot
        self.wire.send({'fork': slot.number}, [theirs.fileno(), slot.output, slot.errors])

    def was_given(self, bundle: Bundle, slot: Slot) -> bool:
        """Say whether a slot's process has a bundle from its nursery."""
        if bundle.identity == self.base.identity:
            return True
        held = self._held.get(bundle.identity)
        return held is not None and held[0] < slot.number

    def hold(self, bundle: Bundle, latest: int) -> None:
        """Give the nursery a bundle for the children after slot number `latest`. Raises OSError."""
        if bundle.identity == self.base.identity:
            return
        if bundle.identity in self._held:
            self._held.move_to_end(bundle.identity)
            return
        descriptor = process.anonymous_file(bundle.raw)
        try:
            self.wire.send({'hold': bundle.identity}, [descriptor])
        finally:
            os.close(descriptor)
        self._held[bundle.identity] = (latest, len(bundle))
        total = sum(size for _, size in self._held.values())
        while total > HELD_LIMIT and len(self._held) > 1:
            identity, (_, size) = self._held.popitem(last=False)
            self.wire.send({'release': identity})
            total -= size

    def running(self) -> int:
        """Number of its children that have a job."""
        return sum(slot.job is not None for slot in self.slots.values())

    def end(self) -> None:
        """Have it end itself, and those of its children that have not answered: slots that have are gone."""
        self.wire.socket.setblocking(False)
        try:
            self.wire.send({'end': list(self.slots)})
        except OSError:
            pass  # it is dead already, or was stopped and has not read for long
        self.wire.close()


class Nurseries:
    """All nurseries of a zygote and their slots."""

    def __init__(self, zips: JobZips, directory: str | None, owner: Owner) -> None:
        self._zips = zips
        self._directory = directory
        self._places = SitePlaces()
        self._owner = owner
        self._links: list[NurseryLink] = []
        self._bases: list[tuple[Bundle, Mapping[str, str | None]]] = []
        self._children = 0
        self._spares_used = 0
        self._started = 0
        self.trouble: dict[str, dict[str, str]] = {}
        """Why a base set could not be imported, by the id of its manifest; jobs.py clears it after telling."""

    def statistics(self) -> dict[str, int]:
        """Nurseries now and ever, children made, and jobs that found a spare child."""
        return {'nurseries': len(self._links), 'nurseries_started': self._started, 'children': self._children,
                'spares_used': self._spares_used}

    def signature_for(self, files: Mapping[str, str]) -> Mapping[str, str | None] | None:
        """Return the signature of a nursery whose base set a manifest shares."""
        for link in self._links:
            if link.current and link.signature is not None and loader.matches(link.signature, files):
                return link.signature
        return None

    def find(self, bundle: Bundle) -> NurseryLink | None:
        """Return the ready and current nursery for a bundle."""
        now = surroundings(self._places)
        for link in list(self._links):
            if not link.current:
                continue
            if link.surroundings != now:
                self._retire(link)
            elif link.serves(bundle):
                return link
        return None

    def starting(self) -> bool:
        """Say whether a nursery has not reported its signature yet."""
        return any(link.current and link.signature is None for link in self._links)

    def base_for(self, bundle: Bundle) -> Bundle | None:
        """Return the bundle of a base set that was imported before and would serve this bundle."""
        for base, signature in self._bases:
            if self._zips.available(base.identity) and loader.matches(signature, bundle.files):
                return base
        return None

    def start(self, base: Bundle) -> None:
        """Start a nursery out of a bundle that has the code of all its files. Raises OSError."""
        link = NurseryLink(base, self._zips, self._directory, self._places)
        self._started += 1
        self._links.append(link)
        self._owner.watch(link.wire.fileno(), lambda: self._hear(link))
        others = [old for old in self._links[:-1] if old.current and old.signature is not None]
        for old in others[:max(0, len(others) + 1 - NURSERIES)]:
            self._retire(old)

    def run(self, link: NurseryLink, bundle: Bundle, job: Any, payload: bytes) -> bool:
        """Send a job into the spare or a new child; False when the nursery turns out to be dead. Raises OSError."""
        number = self._zips.take(bundle.identity, link.number)
        try:
            slot = self._slot_for(link, bundle, payload, self._zips.path(number))
        except ConnectionError:
            self._zips.give_back(number)
            self._lose(link)
            return False
        except BaseException:
            self._zips.give_back(number)
            raise
        slot.job = job
        slot.zip = number
        return True

    def _slot_for(self, link: NurseryLink, bundle: Bundle, payload: bytes, root: str) -> Slot:
        """Return the slot that took the job."""
        spare = link.spare
        if spare is not None:
            try:
                self._send(link, spare, bundle, payload, root)
                link.spare = None
                self._spares_used += 1
                return spare
            except ConnectionError:
                link.spare = None  # somebody killed it; its nursery is about to say so
        # Until it has the job it is a spare, for another one when it cannot be given this one.
        slot = link.spare = self._new_slot(link)
        self._send(link, slot, bundle, payload, root)
        link.spare = None
        return slot

    def look_ahead(self, link: NurseryLink, bundle: Bundle) -> None:
        """After a job was sent: have its code kept for later children, and the next child forked."""
        try:
            link.hold(bundle, self._children)
        except ConnectionError:
            self._lose(link)
        except OSError:
            pass  # no descriptors or memory left; the next child loads the code itself
        self.prepare_spare(link)

    def _send(self, link: NurseryLink, slot: Slot, bundle: Bundle, payload: bytes, root: str) -> None:
        descriptors = [process.anonymous_file(payload)]
        try:
            if not link.was_given(bundle, slot):
                descriptors.append(process.anonymous_file(bundle.raw))
            slot.wire.send({'manifest': bundle.identity, 'root': root}, descriptors)
            # The job is under way: from here on nothing may fail.
            slot.payload = descriptors.pop(0)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def prepare_spare(self, link: NurseryLink) -> None:
        """Have a child forked ahead of need, if it can be."""
        if link.current and link.signature is not None and link.spare is None:
            try:
                link.spare = self._new_slot(link)
            except ConnectionError:
                self._lose(link)
            except OSError:
                pass  # the next job will say what is wrong

    def prepare_spares(self) -> None:
        """Have a spare forked in every nursery that is ready and has none."""
        for link in list(self._links):
            self.prepare_spare(link)

    def _new_slot(self, link: NurseryLink) -> Slot:
        ours, theirs = socket.socketpair()
        with theirs:
            self._children += 1
            slot = Slot(self._children, ours, link.pid)
            try:
                link.fork(slot, theirs)
            except BaseException:
                link.slots.pop(slot.number, None)
                slot.close()
                raise
        self._owner.watch(slot.wire.fileno(), lambda: self._hear_child(link, slot))
        return slot

    # What nurseries and children say

    def _hear(self, link: NurseryLink) -> None:
        try:
            messages = link.wire.receive()
        except (EOFError, OSError):
            self._lose(link)
            return
        if not all(is_report(message) for message, _ in messages):
            return self._lose(link)  # what it imported writes to descriptors that are not its own
        for message, _ in messages:
            if 'exit' in message:
                slot = link.slots.get(message['exit'][0])
                if slot is not None:
                    self._child_exited(link, slot, message['exit'][1], message.get('reason'))
            elif 'ready' in message:
                link.signature = message['ready']
                self._bases = [(link.base, message['ready']), *self._bases[:NURSERIES - 1]]
                self._zips.give_back(link.number)
                self._owner.base_ended()
            else:
                self.trouble[link.base.identity] = message['failed']  # its end comes next, and gives back its zip
                self._owner.base_ended()

    def _hear_child(self, link: NurseryLink, slot: Slot) -> None:
        if not slot.receive():
            return
        if slot.answer is not None:
            self._end(link, slot, None)
        elif link.closed:
            # Nobody is left who could report the status.
            self._end(link, slot, None)
        else:
            # The child died or is dying without an answer; its nursery reports how.
            self._owner.unwatch(slot.wire.fileno())

    def _child_exited(self, link: NurseryLink, slot: Slot, status: int | None, reason: Any) -> None:
        if reason is not None:
            slot.answer = {'error': reason}  # it could not be forked
        elif slot.answer is None:
            slot.receive()
        self._end(link, slot, status)

    def _end(self, link: NurseryLink, slot: Slot, status: int | None) -> None:
        """Give back everything a slot had and tell the owner, if it had a job."""
        del link.slots[slot.number]
        self._owner.unwatch(slot.wire.fileno())
        if slot is link.spare:
            link.spare = None
        if slot.zip is not None:
            self._zips.give_back(slot.zip)
        if slot.job is not None:
            lost = slot.answer is None and not slot.begun()
            (self._owner.job_not_begun if lost else self._owner.job_ended)(slot, status)
        slot.close()
        if not link.current:
            self._close_if_idle(link)

    # Ends of nurseries

    def _retire(self, link: NurseryLink) -> None:
        """Give a nursery no more jobs."""
        link.current = False
        self._close_if_idle(link)

    def _close_if_idle(self, link: NurseryLink) -> None:
        if link.closed or link.running():
            return
        self._shut(link)
        for slot in list(link.slots.values()):
            self._end(link, slot, None)

    def _shut(self, link: NurseryLink) -> None:
        link.closed = True
        self._links.remove(link)
        if link.signature is None:
            self._zips.give_back(link.number)
        self._owner.unwatch(link.wire.fileno())
        link.end()

    def _lose(self, link: NurseryLink) -> None:
        """A nursery ended by itself: it was killed, or its base set could not be imported."""
        if link.closed:
            return
        starting = link.signature is None
        link.current = False
        self._shut(link)
        for slot in list(link.slots.values()):
            if slot.job is None or slot.receive():
                self._end(link, slot, None)
        if starting:
            self.trouble.setdefault(link.base.identity, {
                'type': 'NurseryLost', 'message': 'the process that imports module_utils died while it started'})
            self._owner.base_ended()

    def close(self) -> list[int]:
        """Cut everything off; return the pids of the nurseries, which end their jobs and then themselves."""
        for link in self._links:
            link.end()
        return [link.pid for link in self._links]
