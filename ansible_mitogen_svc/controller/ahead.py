# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Packs the modules of coming tasks, and gives them to targets, while the tasks before them wait for their targets.

`ModulesAhead` is made by the strategy for each play in the main thread, has one thread of its own, and ends with the
play. What it does is what the first task of each module would do, earlier.

Theory of operation
1. A play's tasks are known when it starts, but for what is included later. Of each task that names a module of
   ansible-core, and of those whose action runs other ones (`ALSO`), the modules are noted in order.
2. The thread stays `WINDOW` modules ahead of the task that was queued last, and works only while no task does
   (`ForkGate`): while ssh logs in, or a module runs. For the gate it is a task itself.
3. It packs the module that ansible-core ships, by core's own functions (compat/module_walk.py), and remembers what that
   learned. It chooses nothing: when a task comes to run another file of that name, that one is packed as ever.
   Where core might say something, or an own module_utils file might be found, nothing is packed ahead.
4. A target that was given code for a task is also given what was packed ahead, for the same identity, without
   waiting (docs/protocol.md): `install` with the files that it was not given before, or, when it said that it has the
   manifest on disk, `recall`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_mitogen_svc.controller.compat import module_walk
from ansible_mitogen_svc.controller.payload import Manifest, manifest_of
from ansible_mitogen_svc.controller.workers.decision import CONTROLLER_ONLY, PROMPTING
from ansible_mitogen_svc.controller.workers.gate import ForkGate
from ansible_mitogen_svc.statistics import counters

#: Modules packed ahead of the current task.
WINDOW = 8
#: Modules that actions of ansible-core run, where they are not those of their own names alone.
ALSO = {
    "shell": ("command",),
    "template": ("stat", "copy", "file"),
    "copy": ("stat", "copy", "file"),
    "assemble": ("stat", "assemble", "copy", "file"),
    "unarchive": ("stat", "unarchive"),
    "fetch": ("stat", "slurp"),
}
#: Actions that run on the controller only, though core has a module of that name, for its documentation.
NONE = CONTROLLER_ONLY | PROMPTING | {"import_role", "import_tasks", "include_role", "include_tasks", "meta"}
#: Seconds between two looks whether tasks wait.
LOOK_INTERVAL = 0.004
#: Seconds between two looks whether a target has had a job, by which it is known who runs jobs there.
GIVE_INTERVAL = 0.03
#: Seconds that the thread may take to end.
END_LIMIT = 2.0


def modules_of(action: str) -> tuple[str, ...]:
    """Names, within ansible.modules, of the modules of core that a task with this action may run."""
    collection, _, name = action.rpartition(".")
    if collection not in ("", "ansible.builtin", "ansible.legacy") or name in NONE:
        return ()
    return ALSO.get(name, (name,))


def tasks_of(blocks: Iterable[Any]) -> Iterator[Any]:
    """The tasks in core's blocks, in the order of the playbook."""
    for block in blocks:
        for each in (*block.block, *block.rescue, *block.always):
            if hasattr(each, "block"):
                yield from tasks_of([each])
            else:
                yield each


class ModulesAhead:
    """See the module. The thread starts with the first task that is queued."""

    def __init__(self, blocks: Iterable[Any], gate: ForkGate, targets: Any) -> None:
        """:param targets: gives the Session's `Targets` when called, None while there is none."""
        self._gate = gate
        self._targets = targets
        self._paths: list[str] = []
        #: {task: how many of `_paths` belong to tasks up to it}
        self._positions: dict[str, int] = {}
        self._state = threading.Condition()
        self._packed: list[Manifest | None] = []
        self._position = 0
        self._latest = ""
        self._news = False
        self._ended = False
        self._thread: threading.Thread | None = None
        known: set[str] = set()
        for task in tasks_of(blocks):
            for name in modules_of(str(task.action)):
                path = os.path.join(module_walk.MODULES, f"{name}.py")
                if path not in known and os.path.exists(path):
                    known.add(path)
                    self._paths.append(path)
            self._positions[task._uuid] = len(self._paths)

    def statistics(self) -> int:
        """Modules looked at so far."""
        return len(self._packed)

    def reached(self, task_uuid: str) -> None:
        """A task was queued, for one host of perhaps many: the thread is woken for the first."""
        if task_uuid == self._latest:
            return
        self._latest = task_uuid
        position = self._positions.get(task_uuid)
        if position is None or not self._paths:
            return
        with self._state:
            self._position = max(self._position, position)
            self._news = True
            self._state.notify_all()
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._run, name="svc-ahead", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """The play has ended."""
        with self._state:
            self._ended = True
            self._state.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(END_LIMIT)

    def _run(self) -> None:
        try:
            all_given = True
            while self._wait_for_news(None if all_given else GIVE_INTERVAL):
                while len(self._packed) < min(self._position + WINDOW, len(self._paths)) and self._wait_for_rest():
                    self._packed.append(self._pack(self._paths[len(self._packed)]))
                    self._give()
                all_given = self._give()
        except Exception as error:
            # Whatever it is, the task that needs the module is the one to say it.
            module_walk.say_debug(f"packing ahead ended: {error!r}")

    def _wait_for_news(self, limit: float | None) -> bool:
        """Wait for the next task, or so many seconds; False at the play's end."""
        with self._state:
            if not self._news and not self._ended:
                self._state.wait(limit)
            self._news = False
            return not self._ended

    def _wait_for_rest(self) -> bool:
        """Wait until no task works; False at the play's end."""
        while not self._ended and self._gate.is_busy():
            time.sleep(LOOK_INTERVAL)
        return not self._ended

    def _pack(self, path: str) -> Manifest | None:
        with self._gate.task():
            files = module_walk.pack_ahead(path)
            if files is None:
                return None
            counters.add("packing", "ahead")
            return manifest_of(files)

    def _give(self) -> bool:
        """Give targets what they may soon need; whether all of them could take it."""
        coming = [manifest for manifest in self._packed[max(0, self._position - WINDOW) :] if manifest is not None]
        targets = self._targets()
        taken = True
        for target in targets.all_targets() if targets is not None and coming else ():
            try:
                taken = all([target.give_ahead(manifest) for manifest in coming]) and taken
            except Exception as error:
                # A target that is lost is found lost by its next task; it must not keep others from theirs.
                module_walk.say_debug(f"nothing was given to {target.name} ahead: {error!r}")
        return taken
