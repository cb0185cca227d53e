# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Lets core find the files that a module imports once, and keeps what it found, also for later runs.

Installed once per process by the executor; runs in task workers of any kind, while core packs a module.

Theory of operation
1. Core's `recursive_finder` (ansible/executor/module_common.py) parses a module, looks up some 340 names in the
   directories of module_utils, parses what it finds, and writes it into the zip. Core itself reads the module, chooses
   it, and adds it to the zip; of that nothing is replaced.
2. `_Walker.walk` stands in its place. The first time it lets core's own do the work and notes each look-up
   (`_Recording`). Afterwards it writes the same files, if a look at all that was searched and read says that core
   would do so again (walk_record.py). In every other case core's own function runs.
3. A record is named by everything else that the outcome is a function of (`_key`): the module's name and content,
   core's version and the source of this part of it, the table of its redirects, Python's version, the directories.
4. Nothing is recorded of a walk that said something (a redirect, a deprecation, a warning of Python about a source),
   has files from elsewhere (embedded resources), or packs extensions (debuggers, coverage).
   Nor are records used at a verbosity at which core names each file.

Checked on ansible-core 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1. Where a name or a signature differs nothing is replaced.
"""

from __future__ import annotations

import datetime
import hashlib
import inspect
import json
import os
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from typing import Any

import ansible.config
from ansible import constants
from ansible._internal._ansiballz import _builder
from ansible._internal._datatag._tags import Origin
from ansible.executor import module_common
from ansible.release import __version__ as core_version
from ansible.utils.display import Display

from ansible_mitogen_svc.controller import module_zip
from ansible_mitogen_svc.controller.compat.module_build import source_warnings
from ansible_mitogen_svc.controller.walk_record import Found, InCollection, Searches, Sources, Walk, contents
from ansible_mitogen_svc.controller.walk_store import WalkStore
from ansible_mitogen_svc.statistics import counters

#: Changes whenever records get another meaning.
FORMAT = 1
#: Verbosity at which core names each file it packs.
NAMES_FILES = 5
#: Records kept in memory; a run uses some dozens of modules.
WALKS_KEPT = 512
_FINDER = ("name", "module_fqn", "module_data", "zf", "date_time", "extension_manager")
_COLLECTION = ("fq_name_parts", "is_ambiguous", "child_is_redirected", "is_optional")
_NAMES = ("LegacyModuleUtilLocator", "CollectionModuleUtilLocator", "_make_zinfo", "module_utils_loader",
          "_MODULE_UTILS_PATH", "_DEFAULT_LEGACY_METADATA", "_get_collection_metadata")  # fmt: skip

_display = Display()


class _Recording:
    """The look-ups of one walk of core's, in the thread that makes it."""

    def __init__(self) -> None:
        self.warned = source_warnings.count
        self.searches = Searches(time.time())
        self.lookups: list[tuple[tuple[str, ...], bool, bool, bool, str]] = []
        self.sources: dict[str, tuple[str, int]] = {}
        self.silent = True

    def legacy(self, locator: Any, paths: list[str]) -> None:
        """A search below ansible.module_utils has ended."""
        names = [tuple(parts[2:]) for parts in locator.candidate_names]
        if locator.redirected or any(map(_is_routed, names)):
            self.silent = False
            return
        self.searches.note(paths, names)
        if locator.found:
            self.sources.setdefault(locator.output_path, (str(locator._info.origin), -1))

    def collection(self, locator: Any, question: tuple[tuple[str, ...], bool, bool, bool]) -> None:
        """A search below ansible_collections has ended."""
        self.silent = self.silent and not locator.redirected
        found = _found(locator)
        if found is not None:
            self.sources.setdefault(found.path, ("", len(self.lookups)))
        self.lookups.append((*question, found.digest if found is not None else ""))

    def walk(self, written: dict[str, bytes]) -> Walk | None:
        """The record, if there can be one."""
        silent = self.silent and source_warnings.count == self.warned
        places = self.searches.places() if silent else None
        if places is None:
            return None
        files = []
        for name, content in written.items():
            source, lookup = self.sources.get(name, ("", -1))
            text = ""
            if not source and lookup < 0:
                if name not in _WRITTEN_BY_CORE:
                    return None
                text = content.decode()
            files.append(Found(name, hashlib.sha256(content).hexdigest(), source, text, lookup))
        return Walk(places, tuple(self.lookups), tuple(files))


#: Files whose text is in core's function itself.
_WRITTEN_BY_CORE = ("ansible/__init__.py", "ansible/module_utils/__init__.py")


class _Current(threading.local):
    recording: _Recording | None = None


_current = _Current()


def _found(locator: Any) -> InCollection | None:
    if not locator.found:
        return None
    source = locator.source_code
    return InCollection(str(locator.output_path), source.encode() if isinstance(source, str) else bytes(source))


def _is_routed(name: tuple[str, ...]) -> bool:
    """Whether core's table has something to say about a name below ansible.module_utils."""
    routing = module_common._get_collection_metadata("ansible.builtin").get("plugin_routing") or {}
    return ".".join(name) in (routing.get("module_utils") or {})


class _Noted:
    """What core takes for the zip: hands files on to `module_zip.add` and keeps them for the record."""

    def __init__(self, archive: zipfile.ZipFile | module_zip.Unzipped) -> None:
        self._archive = archive
        self.written: dict[str, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._archive, name)

    def writestr(self, info: zipfile.ZipInfo, content: str | bytes) -> None:
        """As ``ZipFile.writestr``."""
        data = content.encode() if isinstance(content, str) else bytes(content)
        self.written[info.filename] = data
        module_zip.add(self._archive, info, data)


#: Where core's own modules are.
MODULES = os.path.join(os.path.dirname(os.path.dirname(module_common.__file__)), "modules")


class _Walker:
    """Stands in for core's `recursive_finder`. Any thread may use it."""

    def __init__(self, core: Callable[..., Any]) -> None:
        self._core = core
        self._sources = Sources()
        self._walks: dict[str, Walk] = {}
        self._fixed = _fixed_key()
        #: Where records stay between runs, if they do.
        self.store: WalkStore | None = None

    def walk(
        self, name: str, module_fqn: str, module_data: Any, zf: zipfile.ZipFile, date_time: Any, extension_manager: Any
    ) -> Any:
        """See core's."""
        key = None
        if not extension_manager.extension_names and not constants.config.get_config_value("_MODULE_METADATA"):
            key = self._key(module_fqn, module_data)
        files = self._known_files(key) if key is not None and _display.verbosity < NAMES_FILES else None
        if files is not None:
            counters.add("packing", "recorded")
            for path, content in files:
                module_zip.add(zf, module_common._make_zinfo(path, date_time, zf=zf), content)
            return module_common._DEFAULT_LEGACY_METADATA
        counters.add("packing", "walked")
        return self._record(key, (name, module_fqn, module_data), zf, (date_time, extension_manager))

    def _record(self, key: str | None, first: tuple[Any, ...], zf: zipfile.ZipFile, last: tuple[Any, ...]) -> Any:
        noted = _Noted(zf)
        recording = _current.recording = _Recording()
        try:
            metadata = self._core(*first, noted, *last)
        finally:
            _current.recording = None
        if key is not None and metadata == module_common._DEFAULT_LEGACY_METADATA:
            walk = recording.walk(noted.written)
            if walk is not None:
                self._remember(key, walk)
                if self.store is not None:
                    self.store.put(key, walk.pack())
        return metadata

    def _remember(self, key: str, walk: Walk) -> None:
        if len(self._walks) >= WALKS_KEPT:
            self._walks = {}
        self._walks[key] = walk

    def _known_files(self, key: str) -> list[tuple[str, bytes]] | None:
        walk = self._walks.get(key)
        try:
            if walk is None:
                data = self.store.get(key) if self.store is not None else None
                if data is None:
                    return None
                walk = Walk.unpack(data)
                self._remember(key, walk)
            return contents(walk, self._sources, _look_up)
        except Exception:
            # Whatever is wrong with a file that was found before, core is the one to say it.
            return None

    def _key(self, module_fqn: str, module_data: Any) -> str:
        data = module_data.encode() if isinstance(module_data, str) else bytes(module_data)
        paths = [str(path) for path in module_common.module_utils_loader._get_paths(subdirs=False)]
        paths = [path for path in paths if os.path.isdir(path)]
        whole = [*self._fixed, module_fqn, hashlib.sha256(data).hexdigest(), paths]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _fixed_key() -> list[str]:
    """What outcomes depend on and no module, play or task can change."""
    redirects = os.path.join(os.path.dirname(ansible.config.__file__), "ansible_builtin_runtime.yml")
    digests = []
    for path in (module_common.__file__, redirects):
        with open(path, "rb") as file:
            digests.append(hashlib.sha256(file.read()).hexdigest())
    own_directory = str(module_common._MODULE_UTILS_PATH)
    return [str(FORMAT), core_version, sys.version, str(sys.warnoptions), own_directory, *digests]


def _look_up(parts: tuple[str, ...], ambiguous: bool, redirected: bool, optional: bool) -> InCollection | None:
    """Core's search in a collection; a redirect is nothing that could have been recorded."""
    locator = module_common.CollectionModuleUtilLocator(parts, ambiguous, redirected, optional)
    if locator.redirected:
        raise LookupError(parts)
    return _found(locator)


def _watching(locator: type, note: Callable[[_Recording, Any, dict[str, Any]], None]) -> None:
    """Have each search of a kind noted in the recording of its thread."""
    core: Callable[..., None] = locator.__init__  # type: ignore[misc]
    signature = inspect.signature(core)

    def initialize(self: Any, *arguments: Any, **keywords: Any) -> None:
        core(self, *arguments, **keywords)
        recording = _current.recording
        if recording is not None:
            bound = signature.bind(self, *arguments, **keywords)
            bound.apply_defaults()
            note(recording, self, bound.arguments)

    locator.__init__ = initialize  # type: ignore[misc]


def _note_legacy(recording: _Recording, locator: Any, given: dict[str, Any]) -> None:
    recording.legacy(locator, list(given["mu_paths"]))


def _note_collection(recording: _Recording, locator: Any, given: dict[str, Any]) -> None:
    parts, ambiguous, redirected, optional = (given[name] for name in _COLLECTION)
    recording.collection(locator, (tuple(parts), bool(ambiguous), bool(redirected), bool(optional)))


_walker: _Walker | None = None


def install() -> bool:
    """Install the walker; whether this core has what it needs. Doing it again changes nothing."""
    global _walker
    if _walker is not None:
        return True
    finder = getattr(module_common, "recursive_finder", None)
    if finder is None or not all(hasattr(module_common, name) for name in _NAMES):
        return False
    locator = module_common.CollectionModuleUtilLocator
    if tuple(inspect.signature(finder).parameters) != _FINDER:
        return False
    if tuple(inspect.signature(locator).parameters) != _COLLECTION:
        return False
    if "mu_paths" not in inspect.signature(module_common.LegacyModuleUtilLocator).parameters:
        return False
    _walker = _Walker(finder)
    _watching(module_common.LegacyModuleUtilLocator, _note_legacy)
    _watching(locator, _note_collection)
    module_common.recursive_finder = _walker.walk
    return True


def pack_ahead(path: str) -> dict[str, bytes] | None:
    """Pack one of core's own modules as for a task, so that the task finds everything remembered; the files.

    None where that could be noticed (core names files at this verbosity, or may find files that are not its own), and
    for what is documentation of an action plugin only.
    """
    if _walker is None or _display.verbosity >= NAMES_FILES or not _only_own_module_utils():
        return None
    with open(path, "rb") as file:
        content = file.read()
    if not module_common.NEW_STYLE_PYTHON_MODULE_RE.search(content) or module_common.REPLACER in content:
        return None
    name = module_common._get_ansible_module_fqn(path)
    now = datetime.datetime.now(datetime.UTC)
    extensions = _builder.ExtensionManager()
    archive = module_zip.Unzipped()
    module_common.recursive_finder(
        name.rpartition(".")[2], name, Origin(path=path).tag(content), archive, now, extensions
    )
    module_common._add_module_to_zip(archive, now, name, content, path, extensions)
    return archive.files


def _only_own_module_utils() -> bool:
    own = os.path.realpath(module_common._MODULE_UTILS_PATH)
    for path in module_common.module_utils_loader._get_paths(subdirs=False):
        if os.path.isdir(path) and os.path.realpath(path) != own and os.listdir(path):
            return False
    return True


def say_debug(text: str) -> None:
    """For who looks into us with ANSIBLE_DEBUG."""
    _display.debug(f"ansible_mitogen.svc: {text}")


def keep_in(store: WalkStore | None) -> None:
    """Keep records in `store` from now on; None: in memory only."""
    if _walker is not None:
        _walker.store = store
