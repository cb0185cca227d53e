# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Splits what core built for a module run into files that never change and parameters that do.

Called by the action mixin in a task worker. Core's `modify_module` (ansible/executor/module_common.py) ends an
AnsiballZ in a call of `_ansiballz_main` with one keyword argument per line, each a Python literal; that call is all we
look at. A reference may stand for the zip (compat/zip_references.py). Checked on ansible-core 2.19.14, 2.20.10, 2.21.5
and 2.22.0rc1. Whatever looks different is not ours to split: `split` raises the reason, and the text is run as it is.
"""

from __future__ import annotations

import ast
import base64
import collections
import json
import threading
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_mitogen_svc.controller import module_zip
from ansible_mitogen_svc.controller.compat import zip_references
from ansible_mitogen_svc.wire import frames

_CALL = b"    _ansiballz_main(\n"
#: Arguments of the call that the zygote's job header carries by names of its own, or that do not concern it.
_KNOWN = {"zip_data", "ansible_module", "module_fqn", "params", "date_time", "rlimit_nofile"}
#: Splitting a zip again costs 1-3 ms; a playbook uses some dozens of modules, each with 150 KB of text.
MANIFESTS_KEPT = 256
_END_OF_LITERAL = 200


@dataclass(frozen=True)
class Manifest:
    """The files of one module zip.

    Attributes:
        id: sha256 (hex) of `text`.
        text: canonical JSON of {path in the zip: sha256 of the file}.
        files: {sha256 (hex): content}, without the manifest itself.
        paths: {sha256 (hex): path in the zip}; one path where several hold the same.
    """

    id: str
    text: bytes = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    paths: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Payload:
    """One run of one module.

    Attributes:
        manifest: its code.
        module: name the module is run by, such as ``ansible.modules.ping``.
        parameters: JSON text for core's `_ANSIBLE_ARGS`. May hold secrets.
        arguments: further keyword arguments of core's `_loader.run_module`.
        rlimit_nofile: soft limit of open files; 0 leaves it.
    """

    manifest: Manifest
    module: str
    parameters: bytes = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)
    rlimit_nofile: int = 0


class NotSplit(Exception):
    """The text is no AnsiballZ that we understand; the message is the reason for the statistics."""


class PayloadSplitter:
    """Splits payloads, and remembers manifests by the zip they came from. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: {length and end of a zip's literal: the literal, and its manifest}
        self._manifests: collections.OrderedDict[tuple[int, str], tuple[str, Manifest]] = collections.OrderedDict()

    def split(self, text: bytes) -> Payload:
        """:raises NotSplit: with the reason."""
        arguments = _call_arguments(text)
        try:
            extensions = ast.literal_eval(arguments["extensions"])
            if extensions:
                raise NotSplit("ansiballz extensions")
            extra = {
                name: _plain(value) for name, value in arguments.items() if name not in _KNOWN and name != "extensions"
            }
            return Payload(
                manifest=self._manifest(arguments["zip_data"]),
                module=ast.literal_eval(arguments["module_fqn"]),
                parameters=ast.literal_eval(arguments["params"]).encode("utf-8", "surrogateescape"),
                arguments=dict(extra, extensions=extensions),
                rlimit_nofile=int(ast.literal_eval(arguments.get("rlimit_nofile", "0"))),
            )
        except (KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
            raise NotSplit("unknown ansiballz shape") from error

    def _manifest(self, literal: str) -> Manifest:
        manifest = self._known(literal)
        if manifest is None:
            text = zip_references.zip_text(ast.literal_eval(literal))
            manifest = self._known(repr(text)) or read_zip(base64.b64decode(text))
            with self._lock:
                self._manifests[_key(literal)] = literal, manifest
                while len(self._manifests) > MANIFESTS_KEPT:
                    self._manifests.popitem(last=False)
        return manifest

    def _known(self, literal: str) -> Manifest | None:
        key = _key(literal)
        with self._lock:
            known = self._manifests.get(key)
            # Comparing costs a twentieth of any checksum.
            if known is None or known[0] != literal:
                return None
            self._manifests.move_to_end(key)
            return known[1]


def _key(literal: str) -> tuple[int, str]:
    return len(literal), literal[-_END_OF_LITERAL:]


def read_zip(data: bytes) -> Manifest:
    """The manifest of a module zip; times in the zip do not matter, so it is the same in every run.

    :raises zipfile.BadZipFile: `data` is none.
    """
    return _manifest(module_zip.contents(data))


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    """The manifest of a module zip that is yet to be made of files, by their paths."""
    return _manifest((path, content, module_zip.digest(content)) for path, content in files.items())


def _manifest(contents: Iterable[tuple[str, bytes, str]]) -> Manifest:
    listing: dict[str, str] = {}
    files: dict[str, bytes] = {}
    paths: dict[str, str] = {}
    for path, content, digest in contents:
        listing[path] = digest
        files[digest] = content
        paths[digest] = path
    return Manifest(*frames.pack_manifest(listing), files, paths)


def _call_arguments(text: bytes) -> dict[str, str]:
    start = text.rfind(_CALL)
    end = text.rfind(b"\n)")
    if start < 0 or end < start:
        raise NotSplit("not ansiballz")
    arguments: dict[str, str] = {}
    for line in text[start + len(_CALL) : end].decode("utf-8", "surrogateescape").split("\n"):
        name, equals, value = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise NotSplit("unknown ansiballz shape")
        arguments[name.strip()] = value.removesuffix(",")
    return arguments


def _plain(literal: str) -> Any:
    """A literal as JSON can carry it; sets (2.22's ``secrets``) travel as tagged lists."""
    value = ast.literal_eval(literal.replace("frozenset(", "(", 1) if literal.startswith("frozenset(") else literal)
    if literal.startswith("frozenset("):
        return {"frozenset": sorted(value)}
    json.dumps(value)
    return value
