# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The source text of a function or class of core, by its indentation.

Called by `caches.py` in the main thread when the first play begins, some forty times. `inspect.getsource` gives the
same text and has the tokenizer read each function to its end, which is 20 ms of every run.
"""

from __future__ import annotations

import inspect
import linecache
import re
import types
from collections.abc import Callable
from typing import Any

_CLOSING = (")", "]", "}")


def source(thing: Callable[..., Any]) -> str:
    """Its text, from its first decorator to its last line. The same as that of `inspect.getsource`, but for classes
    with a string that has lines further out than the block: that ends it, always at the same place.

    :raises OSError: there is no source.
    :raises TypeError: `thing` was not made of Python.
    """
    found: Any = inspect.unwrap(thing)
    lines = linecache.getlines(inspect.getfile(found))
    if isinstance(found, type):
        start = _class_line(lines, found.__qualname__)
        code_ends = start + 1
    else:
        start = found.__code__.co_firstlineno - 1
        code_ends = _last_line(found.__code__)
    if not 0 <= start < code_ends <= len(lines):
        raise OSError(f"no source of {thing!r}")
    return "".join(lines[start : _end(lines, start, code_ends)])


def _last_line(code: types.CodeType) -> int:
    """Number of the last line that does something, in a function or in those within it."""
    within = [_last_line(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return max(code.co_firstlineno, *(place[2] or 0 for place in code.co_lines()), *within)


def _class_line(lines: list[str], name: str) -> int:
    """Index of the line on which a class of a module begins, decorators and all; -1 when there is none."""
    statement = re.compile(rf"class {re.escape(name)}\b")
    number = next((number for number, line in enumerate(lines) if statement.match(line)), -1)
    while number > 0 and lines[number - 1].startswith("@"):
        number -= 1
    return number


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _end(lines: list[str], start: int, code_ends: int) -> int:
    """Index after the last line of the block that starts at `start` and does not end before index `code_ends`."""
    outer = _indentation(lines[start])
    end = code_ends
    while lines[end - 1].lstrip().startswith("@"):
        end += 1
    for number in range(end, len(lines)):
        text = lines[number].strip()
        if not text:
            continue
        if _indentation(lines[number]) <= outer and not text.startswith(_CLOSING):
            break
        end = number + 1
    return end
