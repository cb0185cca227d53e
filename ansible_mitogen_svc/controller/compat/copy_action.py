# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What core's copy action will do with a file or a directory, asked of its own functions where there are such.

Looked at: ansible/plugins/action/copy.py of 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1. Its `_copy_file`, `_walk_dirs` and
argument filters are the same in all of them; only which directories count as made differs. The arguments composed here
are compared with those core composes for the first file, directory or link of each kind before any is used.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.release import __version__

_NEEDED = ("_walk_dirs", "_create_remote_file_args", "_create_remote_copy_args")
_PARAMETERS = ["self", "source_full", "source_rel", "content", "content_tempfile", "dest", "task_vars", "follow"]

Arguments = dict[str, Any]


@functools.cache
def is_core_copy(action: type[Any]) -> bool:
    """Whether an action plugin's class is core's copy, as it is known here."""
    return _core_of(action) is not None


def _core_of(action: type[Any]) -> Any:
    """The module of core's copy action, when the class has its `_copy_file` from there; else None."""
    copy_file = getattr(action, "_copy_file", None)
    module = sys.modules.get(getattr(copy_file, "__module__", ""), None)
    core = os.path.join(_core_directory(), "plugins", "action", "copy.py")
    if copy_file is None or module is None or getattr(module, "__file__", None) != core:
        return None
    known = all(callable(getattr(module, name, None)) for name in _NEEDED)
    return module if known and list(inspect.signature(copy_file).parameters) == _PARAMETERS else None


@functools.cache
def _core_directory() -> str:
    spec = importlib.util.find_spec("ansible")
    assert spec is not None and spec.submodule_search_locations
    return str(next(iter(spec.submodule_search_locations)))


@functools.cache
def core_module_source(name: str) -> bytes:
    """The source of one of core's modules as it is installed."""
    with open(os.path.join(_core_directory(), "modules", f"{name}.py"), "rb") as file:
        return file.read()


class CopyArguments:
    """What a copy action has its modules do. `action` is the plugin's instance, in whose thread all of this runs."""

    def __init__(self, action: Any, arguments: Mapping[str, Any] | None = None) -> None:
        """:param arguments: of the task; its own unless given."""
        self._action = action
        self._arguments: Mapping[str, Any] = action._task.args if arguments is None else arguments
        self._core = next(filter(None, map(_core_of, type(action).__mro__)))
        self.force = boolean(self._arguments.get("force", "yes"), strict=False)
        self.raw = boolean(self._arguments.get("raw", "no"), strict=False)

    def copy_arguments(self, dest: str, source: str, relative: str, follow: bool, checksum: str) -> Arguments:
        """Of the copy module for one file whose content differs."""
        arguments: Arguments = dict(self._core._create_remote_copy_args(self._arguments))
        place = self.temporary(dest, relative)
        arguments.update(src=place, dest=dest, _original_basename=relative, follow=follow)
        if not self._arguments.get("checksum"):
            arguments["checksum"] = checksum
        return self._with_mode(arguments, source)

    def temporary(self, dest: str, relative: str) -> str:
        """Where core puts a file before its copy module runs."""
        shell = self._action._connection._shell
        file = shell.join_path(dest, relative) if shell.path_has_trailing_slash(dest) else dest
        suffix = os.path.splitext(file)[1]
        return f"{shell.join_path(shell.tmpdir, '.source')}{suffix}"

    def file_arguments(self, dest: str, source: str, relative: str) -> Arguments:
        """Of the file module for one file whose content is there."""
        arguments: Arguments = dict(self._core._create_remote_file_args(self._arguments))
        arguments.update(dest=dest, _original_basename=relative, recurse=False, state="file")
        arguments.pop("src", None)
        return self._with_mode(arguments, source)

    def _with_mode(self, arguments: Arguments, source: str) -> Arguments:
        if self._arguments.get("mode", None) == "preserve":
            arguments["mode"] = f"0{stat.S_IMODE(os.stat(source).st_mode):03o}"
        return arguments


class CopyPlan(CopyArguments):
    """One directory that the action is copying."""

    def __init__(self, action: Any, source: str) -> None:
        super().__init__(action)
        arguments = action._task.args
        self.follow_links = boolean(arguments.get("local_follow", True), strict=False)
        shell = action._connection._shell
        found = self._core._walk_dirs(
            source, local_follow=self.follow_links, trailing_slash_detector=shell.path_has_trailing_slash
        )
        self.files: Sequence[tuple[str, str]] = found["files"]
        self.directories: Sequence[tuple[str, str]] = found["directories"]
        links = found["symlinks"]
        self.links: Sequence[tuple[str, str]] = links if isinstance(links, list) else []
        self._has_directories = bool(self.directories)

    def stat_arguments(self, dest: str, relative: str, follow: bool) -> Arguments:
        """Of the stat module for one file."""
        return {
            "path": self._action._connection._shell.join_path(dest, relative), "follow": follow,
            "get_checksum": self.force, "get_size": False, "checksum_algorithm": "sha1",
        }  # fmt: skip

    def directory_arguments(self, dest: str, relative: str) -> Arguments:
        """Of the file module for one directory."""
        arguments: Arguments = dict(self._core._create_remote_file_args(self._arguments))
        mode = self._arguments.get("directory_mode", None)
        arguments.update(path=os.path.join(dest, relative), state="directory", mode=mode, recurse=False)
        arguments.pop("src", None)
        return arguments

    def link_arguments(self, dest: str, pointee: str, relative: str) -> Arguments:
        """Of the file module for one symbolic link."""
        arguments: Arguments = dict(self._core._create_remote_file_args(self._arguments))
        arguments.update(path=os.path.join(dest, relative), src=pointee, state="link", force=True)
        if self._has_directories:
            arguments["follow"] = False
        if arguments.get("mode", None) == "preserve":
            arguments.pop("mode")
        return arguments

    @staticmethod
    def made(copied: Sequence[str]) -> set[str]:
        """Directories that count as made when these files were copied."""
        if __version__.startswith("2.19."):
            return {""} if copied else set()
        found: set[str] = set()
        for relative in copied:
            while (relative := os.path.dirname(relative)) != "":
                found.add(relative)
        return found


def find_source(action: Any) -> str | None:
    """The directory that a copy task names, with its trailing slash as written; None when it is no directory."""
    source = action._task.args.get("src", None)
    if not isinstance(source, str) or not source:
        return None
    found = str(action._find_needle("files", source))
    if source.endswith(os.path.sep) != found.endswith(os.path.sep):
        found = found[:-1] if found.endswith(os.path.sep) else found + os.path.sep
    return found if os.path.isdir(found) else None


def key_of(module: str, arguments: Mapping[str, Any]) -> str:
    """A name for one run of a module with these arguments."""
    return module + repr(sorted(arguments.items()))
