# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Turns a manifest and its source files into a bundle and a module zip, in a process of its own.

Forked by the zygote once per manifest that neither its memory nor its store has; compiling and every write to the
store happen here, so that the zygote itself never waits for a disk or a compiler.
"""

from __future__ import annotations

import hashlib
import marshal
import warnings

from ansible_mitogen_svc.target import bundle
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_mitogen_svc.target.store import Store


class SourcesMissing(LookupError):
    """Files of a manifest that were neither offered nor in the store; `digests` lists them."""

    def __init__(self, digests: list[str]) -> None:
        super().__init__(f'{len(digests)} files are missing')
        self.digests = digests


def build(store: Store, identity: str, text: bytes, offered: Mapping[str, bytes],
          preloaded: Mapping[str, str | None]) -> bytes:
    """Write manifest, sources, zip and bundle of a manifest to `store` and return the bundle's bytes.

    `offered` holds sources as they came from the wire, `{sha256: bytes}`; they are verified here. Files equal to
    `preloaded` get no byte code. Raises SourcesMissing, FrameError (bad manifest), OSError (the zip cannot be written).
    """
    files = frames.unpack_manifest(identity, text)
    store.make_directories()  # somebody may have emptied ~/.cache meanwhile
    sources, new = _collect(store, files, offered)
    archive = _write_zip(store, identity, files, sources)
    bodies = _compile(files, sources, preloaded)
    data = bundle.pack_bundle(files, hashlib.sha256(archive).hexdigest(), bodies)
    try:
        for digest in new:
            store.add_blob(digest, sources[digest])
        store.add_bundle(identity, (data,))
        store.add_manifest(identity, text)
        store.prune()
    except OSError:
        pass  # a full disk costs the next run its cache, not this one its result
    return data


def _collect(store: Store, files: Mapping[str, str],
             offered: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """Return the verified sources by digest, and the digests the store does not have yet."""
    sources: dict[str, bytes] = {}
    missing = []
    new = []
    for digest in dict.fromkeys(files.values()):
        data = offered.get(digest)
        if data is not None and hashlib.sha256(data).hexdigest() == digest:
            new.append(digest)
        else:
            data = store.blob(digest)
        if data is None:
            missing.append(digest)
        else:
            sources[digest] = data
    if missing:
        raise SourcesMissing(missing)
    return sources, new


def _write_zip(store: Store, identity: str, files: Mapping[str, str], sources: Mapping[str, bytes]) -> bytes:
    """Write the zip core's wrapper would have made, with the sitecustomize.py it adds; return its bytes."""
    path = store.zip_path(identity)
    entries = [(name, sources[digest]) for name, digest in sorted(files.items()) if name != 'sitecustomize.py']
    # The literal is core's (2.21); it matters to a Python started with PYTHONPATH=zip beside a system-wide ansible.
    entries.append(('sitecustomize.py', f'import sys\nsys.path.insert(0, {path!r})\n'.encode()))
    archive = bundle.pack_zip(entries)
    from ansible_mitogen_svc.target.store import write_atomically

    write_atomically(path, (archive,))
    return archive


def _compile(files: Mapping[str, str], sources: Mapping[str, bytes],
             preloaded: Mapping[str, str | None]) -> dict[str, bytes]:
    """Return `{path: marshalled code}`; a file that does not compile has an empty body and fails when imported."""
    bodies = {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for path, digest in files.items():
            if not path.endswith('.py') or preloaded.get(path) == digest:
                continue
            try:
                bodies[path] = marshal.dumps(compile(sources[digest], path, 'exec', dont_inherit=True))
            except (SyntaxError, ValueError, RecursionError):
                bodies[path] = b''
    return bodies
