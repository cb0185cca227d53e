# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Loops of `copy` and `template`: files that are as they shall be are asked about for many items at once.

One `LoopAhead` per task that loops, made by the executor and handed to its connections; one_trip.py tells it which file
core is about to copy, running.py asks it before a pair is sent. Lives in a task worker, one thread.

Theory of operation
1. Core's loop runs unchanged, item by item, and composes the two runs of a pair for each (one_trip.py): the stat
   module's, and the file module's that follows when the content is there already. Only the question is saved: where
   the answers to both are known, they are given to core as if they had just come.
2. When files before an item needed nothing, the pairs of the items behind it are guessed: the arguments of the loop's
   task are filled in without templating (plain_template.py), and put into the two runs that core has just composed.
   They are asked for in two jobs: core's stat module for all; then core's file module, *in check mode*, for those
   that are files. Neither changes anything, so a wrong guess costs bytes and no more.
3. An answer is used for the very runs that it was asked for: core's composed ones are compared with what was sent,
   module by module, parameter by parameter (but for check mode and the name of the temporary directory, which neither
   module touches), with their environment, interpreter and identity. It is used only when the content that the stat
   module found is the one core wants, and the file module in check mode had nothing to change: then without check mode
   it does the same, which is nothing.
4. Why such an answer is true although it was had before the item's turn: it is the one the item would have had if the
   items before it had taken less time. Between question and turn our loop does nothing on the target, since any job
   that this process sends there meanwhile, of any task, makes all answers be forgotten, as does a result with a change.
   Whoever else writes to the file in these milliseconds is not ordered with the loop by anything in the play, and might
   as well write just after the item's turn. What could order them is looked at: a `pause` between items, and lookups
   in what the task evaluates for each item; with either nothing is asked ahead.
5. How many are asked for is four times the number of items that needed nothing in a row: a loop in which files change
   costs what it did, and one of a thousand files that do not, ten round trips.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_mitogen_svc.controller.batch import Batch, Item, Outcome, outcome_of, simple_result
from ansible_mitogen_svc.controller.compat.copy_action import Arguments, CopyArguments
from ansible_mitogen_svc.controller.compat.module_walk import say_debug
from ansible_mitogen_svc.controller.pair import HeldRun
from ansible_mitogen_svc.controller.payload import Payload
from ansible_mitogen_svc.controller.plain_template import NotPlain, plainly
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services.answers import Answer
from ansible_mitogen_svc.statistics import counters

#: Items asked about at once, at most; and for each that needed nothing.
MOST, EACH = 500, 4
#: Items that needed nothing before any is asked about ahead.
FEW = 2
_LOOKUP = re.compile(r"\b(lookup|query|q)\s*\(")
_EVALUATED = ("when", "changed_when", "failed_when", "until", "vars", "environment", "delegate_to", "become_user")


@dataclass(frozen=True)
class Place:
    """The file that core is about to copy.

    Attributes:
        action: core's copy action.
        variables: of the task and item.
    """

    action: Any
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A module run as it would be sent.

    Attributes:
        zygote: number of the one it is for.
        header: of the job.
        arguments: of the module, core's own ones among them.
    """

    zygote: int
    header: dict[str, Any]
    arguments: Arguments
    payload: Payload

    def key(self, arguments: Arguments) -> str:
        """What is the same for two runs that do the same."""
        header = {name: value for name, value in self.header.items() if name != "steps"}
        return json.dumps([self.zygote, header, {**arguments, "_ansible_tmpdir": None}], sort_keys=True)


class LoopAhead:
    """See the module."""

    def __init__(self, items: list[Any], arguments: Mapping[str, Any], variable: str) -> None:
        """
        :param arguments: of the task, before they are templated.
        :param variable: that has the item.
        """
        self._items = items
        self._raw = arguments
        self._variable = variable
        self._position = -1
        self._place: Place | None = None
        #: Items that needed nothing, in a row; and how many are needed before any is asked about.
        self._row, self._few = 0, FEW
        self._answers: dict[str, Outcome] = {}
        self._target: Target | None = None
        self._jobs = -1
        self._off = False

    def next_item(self) -> None:
        """Core goes on to the next item."""
        self._position += 1

    def reached(self, place: Place | None) -> None:
        """Core is about to copy a file; or has done so."""
        self._place = place

    def end(self) -> None:
        """The loop has ended."""
        self._forget()

    # -- one pair

    def known(self, target: Target, held: HeldRun, second: Run) -> tuple[Answer, Answer] | None:
        """The answers to a pair; None when it has to be sent."""
        first = _run(held)
        if first is None or self._off or not held.condition["same"] or held.blobs[1:]:
            return None
        if target is not self._target or target.jobs != self._jobs:
            self._forget()
            self._target, self._jobs, self._row = target, target.jobs, 0
        if first.key(first.arguments) not in self._answers and self._row >= self._few:
            try:
                if not self._ask(target, held, first, second):
                    # In vain: next time after more of them.
                    self._row, self._few = 0, 2 * self._few
            except Exception as error:
                # Whatever it is, the pair itself will have the same, and core the words for it.
                say_debug(f"nothing more is asked ahead of its turn: {error!r}")
                self._off = True
                self._forget()
        return self._answer(held, first, second)

    def note(self, target: Target, answer: Answer) -> None:
        """A pair was sent, and its second run has this answer."""
        result = simple_result(outcome_of(answer))
        self._jobs += 1
        if target.jobs == self._jobs and result is not None and result.get("changed") is False:
            self._row += 1
        else:
            self._forget()
            self._row = 0

    def _answer(self, held: HeldRun, first: Run, second: Run) -> tuple[Answer, Answer] | None:
        status = self._answers.pop(first.key(first.arguments), None)
        done = self._answers.pop(second.key(_checked(second.arguments)), None)
        if status is None or done is None or _sha1_of(status) != held.condition["sha1"]:
            return None
        self._row += 1
        counters.add("foreseen", "asked ahead")
        return _as_answer(status), _as_answer(done)

    def _forget(self) -> None:
        if self._answers:
            counters.add("foreseen", "asked ahead in vain", amount=len(self._answers))
        self._answers = {}

    # -- many pairs

    def _ask(self, target: Target, held: HeldRun, first: Run, second: Run) -> bool:
        """Ask for the current item's pair and those of items behind it; False when that was in vain.

        :raises Exception: as `Target.run`.
        """
        self._forget()
        guessed = self._guess(first, second)
        stat, file = Batch(first.arguments, [], "stat"), Batch({}, [], "file")
        if len(guessed) <= FEW or not (stat.fits(first.payload) and file.fits(second.payload)):
            return True
        here = first.arguments["path"]
        stat.items = [Item(path, {**first.arguments, "path": path}) for path in guessed if path != here]
        found = self._run(target, held, first, stat, here)
        files = [path for path in guessed if path in found and _sha1_of(found[path])]
        if files:
            runs = {path: _checked({**second.arguments, **guessed[path]}) for path in files}
            file.first = runs[files[0]]
            file.items = [Item(path, runs[path]) for path in files[1:]]
            for path, outcome in self._run(target, held, second, file, files[0]).items():
                result = simple_result(outcome)
                if result is not None and result.get("changed") is False:
                    self._answers[first.key({**first.arguments, "path": path})] = found[path]
                    self._answers[second.key(runs[path])] = outcome
        self._jobs += 2 if files else 1
        return first.key(first.arguments) in self._answers

    @staticmethod
    def _run(target: Target, held: HeldRun, run: Run, batch: Batch, own: str) -> dict[str, Outcome]:
        """Have a batch run; outcomes by path. Raises as `Target.run`."""
        blobs = [json.dumps({"ANSIBLE_MODULE_ARGS": batch.first}).encode()]
        items = batch.pack(len(blobs))[0]
        answer = target.run(held.zygote, {**run.header, "steps": [], "items": items}, blobs)
        outcome = batch.take(outcome_of(answer))
        return {**batch.outcomes, own: outcome}

    def _guess(self, first: Run, second: Run) -> dict[str, Arguments]:
        """The file module's arguments for this item and the next ones, by path; none when this one's are others."""
        place = self._place
        if place is None:
            return {}
        try:
            path, arguments = self._guess_item(place, self._position)
        except (NotPlain, OSError):
            return {}
        same = all(name in second.arguments and second.arguments[name] == value for name, value in arguments.items())
        if path != first.arguments.get("path") or not same:
            return {}
        guessed = {path: arguments}
        for position in range(self._position + 1, min(len(self._items), self._position + min(MOST, EACH * self._row))):
            try:
                path, arguments = self._guess_item(place, position)
            except (NotPlain, OSError):
                continue
            guessed.setdefault(path, arguments)
        return guessed

    def _guess_item(self, place: Place, position: int) -> tuple[str, Arguments]:
        """Where an item's file will be, and the file module's arguments for it. Raises NotPlain, OSError."""
        action, given = place.action, {self._variable: list.__getitem__(self._items, position)}
        arguments = dict(action._task.args)
        for name, raw in self._raw.items():
            if name != "src" and name in arguments:
                arguments[name] = plainly(raw, place.variables, given)
        source, dest = plainly(self._raw.get("src"), place.variables, given), arguments.get("dest")
        if not isinstance(source, str) or not isinstance(dest, str) or dest.startswith("~"):
            raise NotPlain
        relative = os.path.basename(source)
        composer = CopyArguments(action, arguments)
        if arguments.get("mode") == "preserve":
            source = str(action._find_needle("files", source))
        shell = action._connection._shell
        path = shell.join_path(dest, relative) if shell.path_has_trailing_slash(dest) else dest
        return path, composer.file_arguments(dest, source, relative)


def loop_ahead(task: Any, items: Any) -> LoopAhead | None:
    """A `LoopAhead` for a task, before its loop begins; None where nothing may be asked ahead.

    :param task: core's, not templated yet.
    """
    if not isinstance(items, list) or len(items) <= FEW or not isinstance(task.args, dict):
        return None
    control = task.loop_control
    evaluated = [getattr(task, name, None) for name in _EVALUATED] + [getattr(control, "label", None), task.args]
    if getattr(control, "pause", None) or _LOOKUP.search(repr(evaluated)):
        return None
    return LoopAhead(items, dict(task.args), str(getattr(control, "loop_var", None) or "item"))


def run_of(zygote: int, header: dict[str, Any], blobs: Sequence[bytes], payload: Payload | None) -> Run | None:
    """A job as a run of a module with its parameters; None when it is more than that."""
    if payload is None or len(blobs) != 1 or header.get("op") != "run" or header.get("known_files"):
        return None
    parameters = json.loads(blobs[0])
    if set(parameters) != {"ANSIBLE_MODULE_ARGS"}:
        return None
    return Run(zygote, header, parameters["ANSIBLE_MODULE_ARGS"], payload)


def _run(held: HeldRun) -> Run | None:
    return run_of(held.zygote.number, held.header, held.blobs, held.payload)


def _checked(arguments: Arguments) -> Arguments:
    return {**arguments, "_ansible_check_mode": True}


def _sha1_of(outcome: Outcome) -> str:
    """Of a file that the stat module found; empty for anything else."""
    result = simple_result(outcome)
    status = result.get("stat") if result is not None else None
    if not isinstance(status, dict) or not status.get("exists") or not status.get("isreg"):
        return ""
    return str(status.get("checksum") or "")


def _as_answer(outcome: Outcome) -> Answer:
    return Answer({"rc": outcome[0], "signal": None}, [outcome[1], outcome[2]])
