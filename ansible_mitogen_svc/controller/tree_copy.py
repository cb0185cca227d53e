# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Directories of `copy`: what core does file by file is done for many files in one message.

The mixin in front of core's copy action when its connection is ours (action.py puts it there); lives in a task worker.

Theory of operation
1. Core's own loop runs unchanged. When it is about to run a module for a file (stat, copy or file), the runs that it
   will ask for next are foreseen, and travel along as further *items* of the same job: core's real modules do all the
   work on the target, one after the other in one process (target/batch.py).
2. Their results wait here. When core's loop comes to such a file, the arguments it composed are looked up: equal ones
   have their result already, any others go core's way.
3. Nothing is foreseen unless the arguments composed for the current file are those that core composed, so that a core
   which composes others is slower and not wrong.
4. A result that is not simply good (failure, warnings, no JSON) is handed to core as the outcome of the command, and
   takes core's whole way from there. The items behind it have not been run.
5. Two files may be one at the destination (a directory there is a link to another, or the file system takes `A` for
   `a`): the copy of one changes the other's state. States found together are forgotten where they are of one file.
6. Nothing is foreseen beyond a file that is none here (a pipe, a socket) or cannot be read: core comes to it in turn
   and has its own words. And no content is beyond a file of which it is not known that it needs none: should that one
   fail, core would never have come to those behind it.
7. Core's way from the start: single files, large files, files of a vault, `raw`, changed files in diff mode, what
   `follow` finds to be a link, destinations that are directories.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import is_encrypted_file
from ansible.utils.display import Display
from ansible.utils.hashing import checksum

from ansible_mitogen_svc.controller.batch import Batch, Item, Outcome, simple_result
from ansible_mitogen_svc.controller.compat import copy_action
from ansible_mitogen_svc.controller.compat.copy_action import Arguments, CopyPlan, key_of
from ansible_mitogen_svc.controller.file_transfer import SMALL
from ansible_mitogen_svc.statistics import counters

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase as _Core
else:
    # The real base is the accelerated action.
    _Core = object

display = Display()
#: Items and bytes of content in one message.
MOST_ITEMS, MOST_BYTES = 1000, 4 << 20
#: Module by which core runs it -> the one of core's that is known to bear several runs in one process.
_BATCHED = {"ansible.legacy.stat": "stat", "ansible.legacy.copy": "copy", "ansible.legacy.file": "file"}


class TreeCopyAction(_Core):
    """Mixin; see the module. `_svc_tree` names are ours, all others core's."""

    #: None until it is known whether a directory is copied; False when none is.
    _svc_tree_plan: CopyPlan | bool | None = None
    _svc_tree_dest = ""
    _svc_tree_follow = False
    #: What core is copying now.
    _svc_tree_at: tuple[str, str] = "", ""
    _svc_batch: Batch | None = None

    def _copy_file(  # noqa: PLR0913
        self, source_full: str, source_rel: str, content: Any, content_tempfile: Any, dest: str, task_vars: Any,
        follow: bool,
    ) -> Any:  # fmt: skip
        if self._svc_tree_plan is None:
            self._svc_tree_begin(content, dest, follow)
        self._svc_tree_at = source_full, source_rel
        result = super()._copy_file(source_full, source_rel, content, content_tempfile, dest, task_vars, follow)
        if result is not None and self._svc_tree_plan:
            self._svc_tree_copied.append(source_rel)
        return result

    def _svc_tree_begin(self, content: Any, dest: str, follow: bool) -> None:
        self._svc_tree_plan = False
        self._svc_tree_copied: list[str] = []
        self._svc_tree_results: dict[str, Outcome] = {}
        self._svc_tree_forgotten: set[str] = set()
        source = copy_action.find_source(self) if content is None else None
        if source is None or self._task.async_val or self._connection.svc_target() is None:
            return
        plan = CopyPlan(self, source)
        if not plan.raw and len(plan.files) > 1:
            self._svc_tree_plan, self._svc_tree_dest, self._svc_tree_follow = plan, dest, follow

    def _transfer_file(self, local_path: Any, remote_path: Any) -> Any:
        if self._svc_tree_plan and self._svc_tree_foreseen_copy() in self._svc_tree_results:
            return None
        return super()._transfer_file(local_path, remote_path)

    def _svc_tree_foreseen_copy(self) -> str:
        assert isinstance(self._svc_tree_plan, CopyPlan)
        full, relative = self._svc_tree_at
        arguments = self._svc_tree_plan.copy_arguments(
            self._svc_tree_dest, full, relative, self._svc_tree_follow, checksum(full)
        )
        return key_of("ansible.legacy.copy", arguments)

    # -- module runs

    def _execute_module(
        self, module_name: Any = None, module_args: Any = None, tmp: Any = None, task_vars: Any = None, **keywords: Any
    ) -> Any:
        if not self._svc_tree_plan or module_name not in _BATCHED or not module_args:
            return super()._execute_module(module_name, module_args, tmp, task_vars, **keywords)
        key = key_of(module_name, module_args)
        outcome = self._svc_tree_results.pop(key, None)
        if outcome is not None:
            result = simple_result(outcome)
            if result is not None:
                return result
            self._svc_outcome = outcome
        else:
            self._svc_batch = self._svc_tree_foresee(module_name, module_args, key)
        batch = self._svc_batch
        try:
            result = super()._execute_module(module_name, module_args, tmp, task_vars, **keywords)
        finally:
            self._svc_batch = self._svc_outcome = None
            if batch is not None:
                self._svc_tree_results.update(batch.outcomes)
                self._svc_tree_stuck = self._svc_tree_stuck or batch.stuck
                counters.add("module_runs", "zygote", "in a batch", amount=len(batch.outcomes))
        if batch is not None and batch.module == "stat":
            self._svc_tree_forget_doubles(result, batch)
        return result

    def _svc_tree_forget_doubles(self, first: Mapping[str, Any], batch: Batch) -> None:
        """Have core ask again, in turn, for the state of each file that has another name in the batch."""
        found = {key: _identity(simple_result(outcome)) for key, outcome in batch.outcomes.items()}
        names = collections.Counter([_identity(first), *found.values()])
        for key, identity in found.items():
            if identity is not None and names[identity] > 1:
                self._svc_tree_forgotten.add(key)
                del self._svc_tree_results[key]

    _svc_outcome: Outcome | None = None
    _svc_tree_stuck = False

    def _svc_tree_foresee(self, module: str, arguments: Mapping[str, Any], key: str) -> Batch | None:
        """The runs of a module that core will ask for after the current one; None when that is not foreseen right."""
        plan = self._svc_tree_plan
        assert isinstance(plan, CopyPlan)
        if key in self._svc_tree_forgotten:
            return None  # the files behind it were asked about with it
        foreseen: list[Item] = []
        size = 0
        met = False
        for item in _as_far_as_can_be_read(self._svc_tree_items(plan, module, arguments)):
            if not met:
                met = item.key == key
                continue
            size += len(item.content or b"")
            if len(foreseen) >= MOST_ITEMS or size > MOST_BYTES:
                break
            if set(item.arguments) == set(arguments):
                foreseen.append(item)
        if not met or not foreseen:
            return None
        return Batch(dict(arguments), foreseen, _BATCHED[module])

    def _svc_tree_items(self, plan: CopyPlan, module: str, arguments: Mapping[str, Any]) -> Iterable[Item]:
        dest, follow = self._svc_tree_dest, self._svc_tree_follow
        state = arguments.get("state")
        if module == "ansible.legacy.stat":
            composed: Iterable[Arguments] = (plan.stat_arguments(dest, rel, follow) for _, rel in plan.files)
        elif module == "ansible.legacy.copy":
            return self._svc_tree_copies(plan)
        elif state == "file":
            composed = (plan.file_arguments(dest, full, rel) for full, rel in self._svc_tree_unchanged(plan))
        elif state == "directory":
            made = plan.made(self._svc_tree_copied)
            composed = (plan.directory_arguments(dest, rel) for _, rel in plan.directories if rel not in made)
        elif state == "link":
            composed = (plan.link_arguments(dest, pointee, rel) for pointee, rel in plan.links)
        else:
            return ()
        return (Item(key_of(module, each), each) for each in composed)

    def _svc_tree_known(self, plan: CopyPlan) -> Iterable[tuple[str, str, Mapping[str, Any] | None, str]]:
        """From the current file on: each with its state on the target, and its checksum here; None and nothing for
        those whose state is not known, and for a vault's. Raises OSError and AnsibleError at one that cannot be read.
        """
        here = plan.files.index(self._svc_tree_at) if self._svc_tree_at in plan.files else len(plan.files)
        for position, (full, relative) in enumerate(plan.files[here:]):
            asked = plan.stat_arguments(self._svc_tree_dest, relative, self._svc_tree_follow)
            status = self._svc_tree_stat(key_of("ansible.legacy.stat", asked)) if position else {}
            if status is None or is_encrypted(full):
                if not position:
                    return
                yield full, relative, None, ""
            else:
                yield full, relative, status, str(checksum(full))

    def _svc_tree_stat(self, key: str) -> Mapping[str, Any] | None:
        outcome = self._svc_tree_results.get(key)
        result = simple_result(outcome) if outcome is not None else None
        return result["stat"] if result is not None and isinstance(result.get("stat"), dict) else None

    def _svc_tree_unchanged(self, plan: CopyPlan) -> Iterable[tuple[str, str]]:
        if self._svc_tree_follow:
            return
        for position, (full, relative, status, local) in enumerate(self._svc_tree_known(plan)):
            if not position or status is not None and plan.force and _is_same(status, local):
                yield full, relative

    def _svc_tree_copies(self, plan: CopyPlan) -> Iterable[Item]:
        if self._task.diff or self._task.check_mode or self._svc_tree_stuck:
            return
        for position, (full, relative, status, local) in enumerate(self._svc_tree_known(plan)):
            if position and status is not None and status.get("exists") and (not plan.force or _is_same(status, local)):
                continue
            if position and (status is None or status.get("isdir") or os.stat(full).st_size > SMALL):
                return
            arguments = plan.copy_arguments(self._svc_tree_dest, full, relative, self._svc_tree_follow, local)
            item = Item(key_of("ansible.legacy.copy", arguments), arguments)
            if position:
                with open(full, "rb") as file:
                    item.content = file.read()
                item.place = plan.temporary(self._svc_tree_dest, relative)
                item.mode = self._connection.svc_new_mode(os.stat(full).st_mode)
            yield item


def is_encrypted(path: str) -> bool:
    """Whether a file is a vault's, which core decrypts before it looks at it. Raises OSError: it cannot be read.

    What is no file is not opened: a pipe would keep who does so waiting.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    with open(path, "rb") as file:
        return bool(is_encrypted_file(file))


def _as_far_as_can_be_read(items: Iterable[Item]) -> Iterable[Item]:
    """The items before the first that there is none of, as its file here cannot be read, or has a name not in UTF-8."""
    with contextlib.suppress(OSError, UnicodeError, AnsibleError):
        yield from items


def _is_same(status: Mapping[str, Any], local: str) -> bool:
    """Whether a state is that of a file with this checksum."""
    return bool(status.get("exists")) and not status.get("isdir") and status.get("checksum") == local


def _identity(result: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Which file it is whose state the stat module found."""
    status = result.get("stat") if result is not None else None
    if not isinstance(status, dict) or not status.get("exists"):
        return None
    return status.get("dev", -1), status.get("inode", -1)
