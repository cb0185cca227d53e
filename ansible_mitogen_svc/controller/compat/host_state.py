# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What hosts' variables were when a task was queued, for tasks in threads.

Made in the main thread when a task is given to a thread, read there. Private to core's VariableManager and HostVars
(ansible/vars/manager.py, ansible/vars/hostvars.py, the same in 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1).

Theory of operation
1. Under core a worker process has the variables of all hosts as they were when it was forked, however long its task
   takes: later items of a loop, and later attempts, do not see what the same task has set for other hosts by then.
2. The main thread alone changes them, by four methods. Each of them first gives the host a dict of its own
   (`keeping`), so that what was there can go on being read without a lock or a copy of all values.
3. A task in a thread is given a VariableManager that has the outer dicts as they were (`as_now`), and a `hostvars`
   that asks it. Tasks share one until something is changed: usually all hosts of a task do.
4. Facts in a cache plugin other than core's memory are read from that plugin, as they are by then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ansible_mitogen_svc.controller.workers.live_task import shallow_clone

#: Methods of VariableManager that change what it has of a host -> where they do.
CHANGING = {
    "set_host_facts": "_fact_cache",
    "set_nonpersistent_facts": "_nonpersistent_fact_cache",
    "set_host_variable": "_vars_cache",
    "clear_facts": "_fact_cache",
}
_SHARED = "_svc_as_now"


class FactsThen:
    """Core's cache of facts in memory, as it was: what VariableManager asks of it for a task."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known

    def get(self, host: str) -> Any:
        """Facts of a host. :raises KeyError: there are none."""
        return self._known[host]


def install(manager: type[Any]) -> None:
    """Have core's VariableManager keep what tasks may be reading. Once per process."""
    for name in CHANGING:
        setattr(manager, name, keeping(getattr(manager, name)))


def keeping(core: Callable[..., Any]) -> Callable[..., Any]:
    """One of `CHANGING`, which leaves alone what tasks may be reading."""
    place = CHANGING[core.__name__]

    @functools.wraps(core)
    def change(self: Any, host: Any, *arguments: Any, **keywords: Any) -> Any:
        self.__dict__.pop(_SHARED, None)
        by_host = _by_host(getattr(self, place, None))
        if by_host is not None and host in by_host:
            by_host[host] = by_host[host].copy()
        return core(self, host, *arguments, **keywords)

    return change


def _by_host(cache: Any) -> dict[Any, Any] | None:
    """The dict behind one of a VariableManager's caches; None when it is not in memory alone."""
    if isinstance(cache, dict):
        return cache
    inner = getattr(cache, "_cache", None)
    return inner if isinstance(inner, dict) and not getattr(cache, "_persistent", True) else None


def as_now(live: Any) -> Any:
    """A VariableManager with what `live` has of all hosts now; its ``_hostvars`` asks it. In the main thread."""
    shared = live.__dict__.get(_SHARED)
    if shared is not None and shared[0] is live._hostvars:
        return shared[1]
    if not all(name in live.__dict__ for name in CHANGING.values()):
        return live  # a core that keeps them elsewhere
    then = shallow_clone(live)
    then.__dict__.pop(_SHARED, None)
    then._vars_cache = live._vars_cache.copy()
    then._nonpersistent_fact_cache = live._nonpersistent_fact_cache.copy()
    facts = _by_host(live._fact_cache)
    if facts is not None:
        then._fact_cache = FactsThen(facts.copy())
    if live._hostvars is not None:
        then._hostvars = shallow_clone(live._hostvars)
        then._hostvars._variable_manager = then
    live.__dict__[_SHARED] = live._hostvars, then
    return then
