# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The file operations a job may ask for before it starts (docs/protocol.md, "Steps").

Run in a job's child, or in the zygote itself for the plain `steps` operation.
"""

from __future__ import annotations

import os
import re
import shutil
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_CLAUSE = re.compile(r'([ugoa]*)((?:[-+=][rwxXst]*)+)')
_ACTION = re.compile(r'([-+=])([rwxXst]*)')
_WHO = {'u': stat.S_IRWXU | stat.S_ISUID, 'g': stat.S_IRWXG | stat.S_ISGID, 'o': stat.S_IRWXO | stat.S_ISVTX}
_PERMISSION = {'r': 0o444, 'w': 0o222, 'x': 0o111}


class StepFailed(Exception):
    """A step that could not be done; `reply` is the header of the answer."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        number = error.errno if isinstance(error, OSError) else None
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = error.filename if isinstance(error, OSError) else None
        message = f'{text}: {name}' if isinstance(name, str) else text
        self.reply = {'failed_step': index, 'error': {'errno': number, 'message': message}}


def run_steps(steps: Sequence[Sequence[Any]], blobs: Sequence[bytes],
              done: Callable[[Sequence[Any]], None] | None = None) -> None:
    """Do the steps in order; blob indexes count in `blobs`. Raises StepFailed at the first that fails.

    `done` is told of each that succeeded.
    """
    for index, step in enumerate(steps):
        try:
            action = _ACTIONS.get(step[0])
            if action is None:
                raise ValueError(f'unknown step {step[0]!r}')
            action(blobs, *step[1:])
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise StepFailed(index, error) from None
        if done is not None:
            done(step)


def _mkdir(blobs: Sequence[bytes], path: str, mode: int | str) -> None:
    """Make a directory that must be new, and its parents (0700) where they are missing."""
    parent = os.path.dirname(path.rstrip('/'))
    if parent and not os.path.isdir(parent):
        _make_parents(parent)
    os.mkdir(path, 0o700)
    os.chmod(path, _octal(mode))


class TemporaryDirectories:
    """Directories made by `tmpdir` steps and not removed by a later one; whoever ends before that removes them."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._under_way: dict[int, Any] = {}
        """Steps that jobs have in front of them, by the job's id: until they answer nobody else knows."""

    def note(self, step: Sequence[Any]) -> None:
        """Take notice of a step that was done."""
        if len(step) > 1 and isinstance(step[1], str):
            if step[0] == 'tmpdir':
                self._paths.add(step[1])
            elif step[0] == 'remove':
                self._paths.discard(step[1])

    def expect(self, job: object, steps: Any) -> None:
        """Take notice of steps that were sent with a job, for its own process to do."""
        if isinstance(steps, list) and steps:
            self._under_way[id(job)] = steps

    def settle(self, job: object, answer: Mapping[str, Any] | None) -> None:
        """Take notice of a job's answer: what failed was not made here, but is somebody else's.

        Without an answer the process was lost in the midst of its job, for which its steps had been done.
        """
        steps = self._under_way.pop(id(job), [])
        if answer is not None and 'rc' not in answer:
            steps = steps[:answer.get('failed_step', answer.get('steps_done', 0))]
        self._note_all(steps)

    def in_use(self) -> bool:
        """Say whether a task is under way that would miss its directory if this process ended now."""
        return bool(self._under_way) or any(map(os.path.isdir, self._paths))

    def _note_all(self, steps: Any) -> None:
        for step in steps:
            if isinstance(step, list):
                self.note(step)

    def remove(self) -> None:
        """Remove what is left, and what a job makes that was cut off."""
        for steps in self._under_way.values():
            self._note_all(steps)
        for path in self._paths:
            shutil.rmtree(path, ignore_errors=True)


def _make_parents(path: str) -> None:
    parent = os.path.dirname(path.rstrip('/'))
    if parent and not os.path.isdir(parent):
        _make_parents(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def _put(blobs: Sequence[bytes], path: str, mode: int | str, blob: int) -> None:
    """Write a file as sftp's put does: in place, through links, keeping the mode of one that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _octal(mode))
    try:
        _write_all(descriptor, blobs[blob])
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def _chmod(blobs: Sequence[bytes], path: str, mode: int | str) -> None:
    """Change a mode; text that is not octal is chmod's symbolic notation and follows its rules."""
    if isinstance(mode, str) and not re.fullmatch('[0-7]+', mode):
        status = os.stat(path)
        os.chmod(path, symbolic_mode(mode, status.st_mode))
    else:
        os.chmod(path, _octal(mode))


def _remove(blobs: Sequence[bytes], path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)  # whatever can go goes, as with rm
            os.rmdir(path)  # says what is wrong, if something is left
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _octal(mode: int | str) -> int:
    return int(mode, 8) if isinstance(mode, str) else mode


def symbolic_mode(text: str, mode: int) -> int:
    """Return the permission bits of `mode` after chmod's symbolic `text` (`u+rwx,g=u` is not supported: no copying).

    An empty "who" means all, masked by the umask, as in POSIX. Raises ValueError.
    """
    bits = stat.S_IMODE(mode)
    for clause in text.split(','):
        match = _CLAUSE.fullmatch(clause)
        if not match:
            raise ValueError(f'not a mode: {text!r}')
        who = match.group(1)
        mask = 0
        for letter in who.replace('a', 'ugo') or 'ugo':
            mask |= _WHO[letter]
        if not who:
            mask &= ~_umask()
        for operator, letters in _ACTION.findall(match.group(2)):
            value = _permissions(letters, bits, stat.S_ISDIR(mode)) & mask
            if operator == '+':
                bits |= value
            elif operator == '-':
                bits &= ~value
            else:
                bits = bits & ~(mask & 0o777) | value
    return bits


def _permissions(letters: str, bits: int, is_directory: bool) -> int:
    value = 0
    for letter in letters:
        if letter == 'X':
            value |= 0o111 if is_directory or bits & 0o111 else 0
        elif letter == 's':
            value |= stat.S_ISUID | stat.S_ISGID
        elif letter == 't':
            value |= stat.S_ISVTX
        else:
            value |= _PERMISSION[letter]
    return value


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


_ACTIONS: dict[str, Callable[..., None]] = {
    'mkdir': _mkdir,
    'tmpdir': _mkdir,
    'put': _put,
    'chmod': _chmod,
    'remove': _remove,
}
