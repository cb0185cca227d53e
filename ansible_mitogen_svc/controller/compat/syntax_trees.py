# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""One thread at a time makes syntax trees, where this Python cannot make two at once. Any thread makes them.

Installed by the strategy mixin before the first thread starts.

Theory of operation

1. While CPython makes a tree (``ast.parse``, ``ast.literal_eval``, ``compile`` with ``PyCF_ONLY_AST``) it counts its
   depth, until 3.12.2 for all threads in one place. A garbage collection in the middle may run a finaliser, and then
   another thread, which counts there as well: ``SystemError: AST constructor recursion depth mismatch``
   (python/cpython, issue 106905).
2. Under core each task has a process. Here core packs modules in threads, and `payload.py` reads their literals.
3. `ast` and core's module_common call the builtin ``compile`` by that name; a function of the same name among their own
   globals is found first. It holds `_lock` while a tree is made, and takes no other lock inside.
4. A child that is forked meanwhile starts with a free lock; the next tree there begins to count anew.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
import threading
from typing import Any

from ansible.executor import module_common

#: Re-entrant: a finaliser that runs in the middle may make a tree itself.
_lock = threading.RLock()
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


def install(concerned: bool = sys.version_info < (3, 12, 2)) -> None:
    """Make `ast` and core's module_common take turns, if this Python is concerned. Doing it again changes nothing."""
    if concerned:
        for module in (ast, module_common):
            vars(module)["compile"] = _compile


def _compile(source: Any, filename: Any, mode: str, flags: int = 0, *arguments: Any, **keywords: Any) -> Any:
    if not flags & ast.PyCF_ONLY_AST:
        return builtins.compile(source, filename, mode, flags, *arguments, **keywords)
    with _lock:
        return builtins.compile(source, filename, mode, flags, *arguments, **keywords)
