# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The session as a forked worker sees it: the services of the parent's Pool, over the parent's unix listener.

One per forked process, used by its only thread. Of the parent's session it takes over what the fork copied and nobody
changes any more (split payloads, which manifests the parent has, what it knows of its targets), never its Router,
Broker or Pool. What it learns of targets it hands over at its end, so that the next worker finds their zygotes and
ships no code again.
"""

from __future__ import annotations

import threading
from typing import Any

import mitogen.core
import mitogen.master
import mitogen.unix

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.closed_router import close_router
from ansible_mitogen_svc.controller.connection_plan import (
    MAX_MESSAGE_SIZE,
    ConnectionPlan,
    Targets,
    plan_arguments,
    start_failure,
)
from ansible_mitogen_svc.controller.payload import Manifest, PayloadSplitter
from ansible_mitogen_svc.controller.target import Hello, Target
from ansible_mitogen_svc.services.connection import ConnectionService
from ansible_mitogen_svc.services.file import FileService
from ansible_mitogen_svc.services.link import Link
from ansible_mitogen_svc.services.module_cache import ModuleCacheService
from ansible_mitogen_svc.services.tally import TallyService
from ansible_mitogen_svc.statistics import counters

#: Seconds that `WorkerSession.close` may take. A task's timeout is an exception out of a signal handler, which may
#: strike while a lock of mitogen is held, and nobody gives that lock back.
CLOSE_LIMIT = 30.0


class WorkerSession(Targets):
    """The session as a forked worker sees it."""

    def __init__(self, path: str, splitter: PayloadSplitter, module_cache: ModuleCacheService, before: Targets) -> None:
        """:param before: the parent's session, as the fork copied it."""
        super().__init__()
        self.splitter = splitter
        self._parent_cache = module_cache
        self._before = before
        self.router, self._parent = mitogen.unix.connect(path, mitogen.master.Broker(install_watcher=False))
        self.router.max_message_size = MAX_MESSAGE_SIZE
        close_router(self.router, follows_parent=True)
        mitogen.core.listen(self._parent, "disconnect", self._on_parent_lost)
        self._link = Link(self.router)
        self._offered: set[tuple[str, int]] = set()

    def _on_parent_lost(self) -> None:
        """The parent was killed, and with it every connection: without this, questions to targets would wait for ever.

        Called in the broker thread. mitogen tells nobody: it knows no route to a target but the parent.
        """
        for target in list(self._by_key.values()):
            mitogen.core.fire(self.router.context_by_id(target.context_id), "disconnect")

    def connect(self, plan: ConnectionPlan, host: str) -> Target:
        """See TaskSession."""
        known = self.known_target(plan.key)
        if known is not None:
            return known
        try:
            connected = service.call(self._parent, ConnectionService, "connect", **plan_arguments(plan))
        except service.CallFailed as error:
            raise start_failure(error) from None
        self.note_use(plan.key, host)
        hello = Hello.from_header(connected["hello"])
        target = Target(self._link, connected["context_id"], plan.key, plan.name, hello, self)
        before = self._known_before(target)
        if before is not None:
            target.take_over(before)
        return self.remember(target, self.router)

    def _known_before(self, target: Target) -> Target | None:
        before = self._before.known_target(target.key)
        return before if before is not None and before.context_id == target.context_id else None

    def hold(self, key: str) -> None:
        """See TaskSession. The parent takes it back when this process's connection to it ends."""
        service.call(self._parent, ConnectionService, "hold_for_worker", key=key)

    def release(self, key: str) -> None:
        """See TaskSession."""

    def tell_use(self, key: str, host: str) -> None:
        """See Targets."""
        service.call(self._parent, ConnectionService, "used_for", key=key, host=host)

    def offer(self, manifest: Manifest, context_id: int) -> None:
        """Let a target fetch the manifest's files; what the parent knew when this process was forked is not sent
        again.
        """
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

    def move_file(self, method: str, **arguments: Any) -> dict[str, Any]:
        """See TaskSession. The parent reads and writes the file, not this process."""
        return dict(service.call(self._parent, FileService, method, **arguments))

    def is_moving(self, target: Target, seconds: float) -> bool:
        """See TaskSession."""
        return bool(
            service.call(self._parent, FileService, "is_moving", context_id=target.context_id, seconds=seconds)
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
        """Hand over the statistics and what was learned of targets, and end the connection to the parent.

        Whatever may have happened to locks: the result of the task is still to be sent.
        """
        closing = threading.Thread(target=self._close, name="close", daemon=True)
        closing.start()
        closing.join(CLOSE_LIMIT)

    def _close(self) -> None:
        targets = [
            [target.key, target.context_id, target.name, news]
            for target in self._by_key.values()
            if target.alive and (news := target.news(self._known_before(target)))
        ]
        try:
            service.call(self._parent, TallyService, "add", **counters.take(), targets=targets)
        except service.CallFailed:
            pass
        self.router.broker.shutdown()
        self.router.broker.join()
