# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Notices when the connection of a context that has called a pool ends. Runs in the broker thread only, where mitogen
fires its 'disconnect' signals, so that no message and no signal can slip in between.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, Callable, Dict

import mitogen
import mitogen.core


class Departures:
    """Calls ``departed(context_id)`` once for each watched context whose connection ends.

    Holds *departed* weakly: it must be a bound method of an object somebody else keeps.
    """

    def __init__(self, router: mitogen.core.Router, departed: Callable[[int], None]) -> None:
        self._router = router
        self._departed = weakref.WeakMethod(departed)
        self._watched: Dict[int, Any] = {}

    def watch(self, context_id: int) -> None:
        """Start watching, if not already. A context the router does not know, or the own one, is not watched."""
        if context_id in self._watched or context_id == mitogen.context_id:
            return
        context = self._router.context_by_id(context_id, create=False)
        if context is not None:
            listener = functools.partial(_fired, weakref.ref(self), context_id)
            self._watched[context_id] = (context, listener)
            mitogen.core.listen(context, "disconnect", listener)

    def stop(self) -> None:
        """Take all listeners back. From any thread; nothing happens when the broker has exited."""
        watched, self._watched = self._watched, {}
        try:
            self._router.broker.defer(_unlisten, list(watched.values()))
        except (mitogen.core.Error, OSError, AttributeError):
            pass  # no signal will ever be fired again

    def departed(self, context_id: int) -> None:
        """The signal of one context was fired."""
        self._watched.pop(context_id, None)
        departed = self._departed()
        if departed is not None:
            departed(context_id)


def _fired(departures: "weakref.ref[Departures]", context_id: int) -> None:
    alive = departures()
    if alive is not None:
        alive.departed(context_id)


def _unlisten(watched: Any) -> None:
    for context, listener in watched:
        try:
            mitogen.core.unlisten(context, "disconnect", listener)
        except ValueError:
            pass  # not on the list any more
