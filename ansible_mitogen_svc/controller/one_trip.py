# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Single files of `copy` and `template` in one round trip: a file's state, and what core does when it is as foreseen.

The mixin in front of core's copy action when its connection is ours and the plugin is one that is known to the last
line (action.py puts it there); lives in a task worker.

Theory of operation
1. Core asks the stat module for the destination's state, and then has the file module set attributes, when the
   content is right, or the copy module put a new one in place. Which of the two it will be is guessed; the run that
   core would ask for then travels along with the one of the stat module, as the second of a *pair*.
2. The target does the second only when the state that the first has just found is what core wants for it
   (target/pairs.py). A wrong guess costs bytes, never a deed.
3. The second run is composed, and its result read, by core's own `_execute_module`, called while the first one is
   about to be sent. The result waits until core asks for a run with the same arguments.
4. The guess is what the last file on the same target needed. That it has to be written is acted on in loops only, where
   files are often of one kind, and for files that are small: what lies there already shall not cost its content.
5. Core's way: directories (tree_copy.py has them), large files, files of a vault, `follow`, `raw`, `force: false`,
   tasks with async, new content in check and in diff mode; everything with -vvv, which shows core's steps in their
   order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display
from ansible.utils.hashing import checksum

from ansible_mitogen_svc.controller.compat.copy_action import Arguments, CopyArguments, key_of
from ansible_mitogen_svc.controller.file_transfer import SMALL
from ansible_mitogen_svc.controller.loop_ahead import Place
from ansible_mitogen_svc.controller.pair import NotSent, Sequel
from ansible_mitogen_svc.controller.tree_copy import is_encrypted
from ansible_mitogen_svc.statistics import counters

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase as _Core
else:
    # The real base is the accelerated action.
    _Core = object

display = Display()
#: Bytes of a content that is sent on a guess.
TINY = 32 << 10
STAT, FILE, COPY = "ansible.legacy.stat", "ansible.legacy.file", "ansible.legacy.copy"


@dataclass
class Foreseen:
    """The run that is expected to follow.

    Attributes:
        module, arguments: of it.
        sha1: of the file here; the state it follows on is that the destination has it, or, for COPY, has another.
        source, place: the file here, and where its content must be on the target before a COPY.
        asked: the stat module's run has been sent.
        result: what core's `_execute_module` gave, once it was made.
        content, mode: of the file, for a COPY.
        withheld: core asked for the transfer of the content, which was not needed.
    """

    module: str
    arguments: Arguments
    sha1: str
    source: str
    place: str
    asked: bool = False
    result: dict[str, Any] | None = None
    content: bytes = b""
    mode: int = 0
    withheld: bool = False

    def __post_init__(self) -> None:
        # Core adds to the arguments when it composes the run.
        self.key = key_of(self.module, self.arguments)


class OneTripCopyAction(_Core):
    """Mixin; see the module. `_svc_trip` names are ours, all others core's."""

    _svc_trip: Foreseen | None = None
    _svc_tree_plan: Any
    _svc_sequel: Sequel | None
    _svc_abridged: bytes | None

    def _copy_file(  # noqa: PLR0913
        self, source_full: str, source_rel: str, content: Any, content_tempfile: Any, dest: str, task_vars: Any,
        follow: bool,
    ) -> Any:  # fmt: skip
        if not self._svc_tree_plan and self._svc_trip_is_simple(source_full, follow):
            # Core has its own words for a source that goes away, cannot be read any more, or has a name not in UTF-8.
            with contextlib.suppress(OSError, UnicodeError, AnsibleError):
                self._svc_trip = self._svc_trip_foresee(source_full, source_rel, dest)
        ahead = self._connection.svc_loop_ahead if content is None else None
        if ahead is not None:
            ahead.reached(Place(self, task_vars))
        try:
            return super()._copy_file(source_full, source_rel, content, content_tempfile, dest, task_vars, follow)
        finally:
            self._svc_trip = None
            if ahead is not None:
                ahead.reached(None)

    def _svc_trip_is_simple(self, source: str, follow: bool) -> bool:
        if follow or self._task.async_val or display.verbosity >= 3 or self._connection.svc_target() is None:
            return False
        try:
            return os.stat(source).st_size <= SMALL and not is_encrypted(source)
        except OSError:
            return False

    def _svc_trip_foresee(self, source: str, relative: str, dest: str) -> Foreseen | None:
        composer = CopyArguments(self)
        if composer.raw or not composer.force:
            return None
        sha1 = str(checksum(source))
        if self._connection.svc_target().latest_copy == FILE:
            arguments = composer.file_arguments(dest, source, relative)
            return Foreseen(FILE, arguments, sha1, source, "")
        looped = self._task.loop is not None and os.stat(source).st_size <= TINY
        place = composer.temporary(dest, relative)
        if not looped or self._task.check_mode or self._task.diff or not place.startswith("/"):
            # Nothing is foreseen, but what core does is noted.
            return Foreseen("", {}, sha1, source, "", asked=True)
        arguments = composer.copy_arguments(dest, source, relative, False, sha1)
        return Foreseen(COPY, arguments, sha1, source, place)

    # -- module runs

    def _execute_module(
        self, module_name: Any = None, module_args: Any = None, tmp: Any = None, task_vars: Any = None, **keywords: Any
    ) -> Any:
        trip = self._svc_trip
        if trip is None or module_name not in (STAT, FILE, COPY):
            return super()._execute_module(module_name, module_args, tmp, task_vars, **keywords)
        if module_name != STAT:
            self._connection.svc_target().latest_copy = module_name
            result, trip.result = trip.result, None
            if result is not None and key_of(module_name, module_args) == trip.key:
                counters.add("foreseen", "right")
                return result
            if result is not None:
                counters.add("foreseen", "not asked for")
            if trip.withheld:
                self._svc_trip_put(trip)
        elif not trip.asked:
            trip.asked = True
            self._svc_sequel = Sequel(
                {"sha1": trip.sha1, "same": trip.module == FILE}, lambda: self._svc_trip_compose(trip, task_vars)
            )
        try:
            return super()._execute_module(module_name, module_args, tmp, task_vars, **keywords)
        finally:
            self._svc_sequel = None

    def _svc_trip_compose(self, trip: Foreseen, task_vars: Any) -> None:
        """Have core compose the foreseen run, whose job the connection sends with the one under way."""
        # The run that is under way was composed, and is not looked at again by what core composes here.
        self._svc_trip, abridged = None, self._svc_abridged
        try:
            if trip.module == COPY:
                self._svc_trip_read(trip)
                self._svc_trip_put(trip)
            trip.result = super()._execute_module(trip.module, dict(trip.arguments), task_vars=task_vars)
        except NotSent:
            counters.add("foreseen", "in vain")
        finally:
            self._svc_trip, self._svc_abridged = trip, abridged

    def _svc_trip_read(self, trip: Foreseen) -> None:
        try:
            with open(trip.source, "rb") as file:
                trip.content = file.read()
                trip.mode = self._connection.svc_new_mode(os.fstat(file.fileno()).st_mode)
        except OSError:
            raise NotSent from None  # core will look for it, and say what is wrong
        if hashlib.sha1(trip.content, usedforsecurity=False).hexdigest() != trip.sha1:
            raise NotSent

    def _svc_trip_put(self, trip: Foreseen) -> None:
        self._connection.svc_steps.add("put", trip.place, trip.mode, data=trip.content)
        self._connection.svc_steps.add("chmod", trip.place, "u+rwx")
        counters.add("transfer", "files")
        counters.add("transfer", "bytes", amount=len(trip.content))

    def _transfer_file(self, local_path: Any, remote_path: Any) -> Any:
        trip = self._svc_trip
        if trip is not None and trip.module == COPY and trip.result is not None and checksum(local_path) == trip.sha1:
            # It was there, and its copy is made; core need not see to its permissions.
            trip.withheld = True
            return None
        return super()._transfer_file(local_path, remote_path)
