# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which pools of this process are open: found by router, or the newest. Written by Pool, read from any thread.

Holds pools weakly, and never hands out one that a forked child has inherited.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Callable, Optional

import mitogen.core

if TYPE_CHECKING:
    from .pool import Pool

_by_router: "weakref.WeakKeyDictionary[mitogen.core.Router, weakref.ref[Pool]]" = weakref.WeakKeyDictionary()
_newest: "Optional[weakref.ref[Pool]]" = None


def remember(pool: "Pool") -> None:
    """*pool* was opened."""
    global _newest
    _by_router[pool.router] = _newest = weakref.ref(pool)


def current() -> "Optional[Pool]":
    """The newest open pool of this process, else None."""
    return _usable(_newest)


def of_router(router: mitogen.core.Router) -> "Optional[Pool]":
    """The open pool of *router* in this process, else None."""
    return _usable(_by_router.get(router))


def weak_listener(pool: "Pool") -> Callable[[], None]:
    """A handler for the broker's signals that does not keep *pool* alive."""
    reference = weakref.ref(pool)

    def broker_ending() -> None:
        alive = reference()
        if alive is not None:
            alive.broker_ending()

    return broker_ending


def _usable(reference: "Optional[weakref.ref[Pool]]") -> "Optional[Pool]":
    pool = reference() if reference is not None else None
    return pool if pool is not None and not pool.closed and pool.pid == os.getpid() else None
