# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Locks that core's plugin loader and variable manager lack, put around their methods from outside.

Called once per process by the strategy mixin, before the first thread starts. Any thread takes these locks.

Theory of operation

1. Core guards neither: every worker used to be a process. In threads the loader hands out half-executed modules and
   half-filled filter tables, and facts change while another thread walks them ("dictionary changed size").
2. `variables_lock` guards VariableManager and the inventory's data; `loader_lock` guards plugin search paths, plugin
   modules and the Jinja plugin tables. Both are re-entrant, because each calls back into what it guards.
3. Order: variables_lock -> loader_lock -> core's display lock -> `services.starting.starting`. Reading variables loads
   plugins and prints warnings; nothing that loads a plugin reads variables while it holds the loader's lock, except to
   call a plugin's constructor.
   A template that is rendered inside the lock would break the order, so plugins are found inside it and run outside.
4. A child forked while another thread holds one of them would wait for ever. `compat/worker_process.py` takes
   all three before it forks, in that order, and the child starts with fresh ones (``os.register_at_fork``).
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

variables_lock: AbstractContextManager[Any] = threading.RLock()
loader_lock: AbstractContextManager[Any] = threading.RLock()

for _lock in (variables_lock, loader_lock):
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]

_MARK = "_ansible_mitogen_svc_locked"


def _locked(function: Callable[..., Any], lock: AbstractContextManager[Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call_with_lock(*arguments: Any, **keywords: Any) -> Any:
        with lock:
            return function(*arguments, **keywords)

    setattr(call_with_lock, _MARK, True)
    return call_with_lock


def guard_methods(owner: type, names: Iterable[str], lock: AbstractContextManager[Any]) -> None:
    """Make each method in `names` that `owner` itself defines hold `lock`. Doing it twice changes nothing."""
    for name in names:
        function = owner.__dict__.get(name)
        if callable(function) and not getattr(function, _MARK, False):
            setattr(owner, name, _locked(function, lock))
