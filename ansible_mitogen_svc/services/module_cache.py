# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""ModuleCacheService: module code by sha256, for the targets that were offered it.

Runs on the Session's Pool in the ansible-playbook process. Workers offer what a task is about to run; zygotes on
targets fetch what their store lacks (docs/protocol.md, "Questions of a zygote").

Theory of operation
1. `offer` names a manifest, its files and one context that may have them. After the first time an offer costs one
   set look-up.
2. `fetch` answers with the files asked for, when all of them were offered to the asking context: a target cannot
   learn what other targets run. A file is named by the hash of its content, so an answer never gets stale.
3. The invoker deduplicates: however many targets ask for the same list at once, it is packed once and broadcast.
4. Content is kept for the life of the run, once per file however many modules share it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import mitogen.core

from ansible_mitogen_svc import service
from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.wire import frames

#: Bytes of packed answers that the invoker keeps.
ANSWERS_KEPT = 16 << 20


class ModuleCacheInvoker(service.DeduplicatingInvoker):
    """Counts what goes to targets, also where an answer is shared."""

    max_bytes = ANSWERS_KEPT

    def delivered(self, method_name: str, kwargs: dict[str, Any], context_id: int) -> None:
        """See DeduplicatingInvoker."""
        if method_name == "fetch":
            self.service.count(kwargs["sha256"])  # type: ignore[attr-defined]


class ModuleCacheService(service.Service):
    """See the module. `offer` and `knows` may be called in any thread; `fetch` runs in pool threads."""

    invoker_class = ModuleCacheInvoker

    def __init__(self, router: mitogen.core.Router) -> None:
        super().__init__(router)
        # Guards the two attributes below; never held while another lock is taken.
        self._offers_lock = threading.Lock()
        self._files: dict[str, bytes] = {}
        self._offered: set[tuple[str, int]] = set()
        #: {sha256: counter of the statistics that its bytes belong to}
        self._kinds: dict[str, str] = {}

    def knows(self, manifest: str) -> bool:
        """Whether the manifest with this id and its files are here."""
        return manifest in self._files

    def offer(
        self, manifest: str, text: bytes, files: Mapping[str, bytes], digests: Iterable[str], context_id: int
    ) -> None:
        """Let a context fetch a manifest and its files.

        :param manifest: id of the manifest.
        :param text: the manifest.
        :param files: {sha256 hex: content} of those files that may not be here yet.
        :param digests: sha256 hex of all its files.
        """
        if (manifest, context_id) in self._offered:
            return
        with self._offers_lock:
            self._files.update(files)
            self._files[manifest] = text
            self._kinds.update(kinds_of_code(manifest, text))
        for digest in (manifest, *digests):
            self.registrations.register(digest, [context_id])
        with self._offers_lock:
            self._offered.add((manifest, context_id))

    @service.expose(service.AllowParents())
    @service.arg_spec({"manifest": str, "text": bytes, "files": dict, "digests": list, "context_id": int})
    @service.not_deduplicated()
    def offer_from_worker(
        self, manifest: str, text: bytes, files: dict[str, bytes], digests: list[str], context_id: int
    ) -> None:
        """`offer`, for forked workers; `files` is empty when they are here already, `digests` names them all."""
        self.offer(manifest, text, files, digests, context_id)

    def count(self, digests: list[str]) -> None:
        """Add files that go to a target to the statistics."""
        for digest in digests:
            counters.add("module_cache", self._kinds.get(digest, "bytes_other"), amount=len(self._files[digest]))

    @service.expose(service.RegisteredContexts("sha256", each=True))
    @service.arg_spec({"sha256": list})
    def fetch(self, sha256: list[str]) -> service.Raw:
        """The files named, packed as docs/protocol.md says."""
        blobs = [self._files[digest] for digest in sha256]
        return service.Raw(frames.pack_payload({"op": "files", "sha256": sha256}, blobs))


def kinds_of_code(manifest: str, text: bytes) -> dict[str, str]:
    """Which counter of the statistics each file of a manifest, and the manifest itself, belongs to, by sha256."""
    kinds = {digest: _kind(path) for path, digest in json.loads(text).items()}
    kinds[manifest] = "bytes_manifest"
    return kinds


def _kind(path: str) -> str:
    if "/module_utils/" in path:
        return "bytes_module_utils"
    return "bytes_module" if "/modules/" in path else "bytes_other"
