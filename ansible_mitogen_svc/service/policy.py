# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Who may call a method: policies, attached with ``@expose(policy)``.

Checked by the pool for each request that came in a message, in a pool thread, and for hits of a deduplicating
service in the broker thread when the policy says that is fine. Calls on the own process's pool are not checked:
they come from the program itself.
"""

from __future__ import annotations

import threading
from typing import Any, Dict, FrozenSet, Hashable, Iterable, Optional, Set, Union

import mitogen
import mitogen.core

from .errors import Error


class Policy:
    """Base of all policies. Stacked ones must all agree."""

    #: True when the check only looks at memory: it may then run in the broker thread, and must not block.
    immediate = False

    def is_authorized(self, service: Any, msg: mitogen.core.Message) -> bool:
        """Whether *msg*'s sender may call. Override this one, or ``permits`` when the arguments matter."""
        raise NotImplementedError

    def permits(self, service: Any, msg: mitogen.core.Message, kwargs: Dict[str, Any]) -> bool:
        """Like is_authorized, given the call's arguments (already checked against the method's arg_spec)."""
        return self.is_authorized(service, msg)


class AllowAny(Policy):
    """Every context that can send a message here, targets included."""

    immediate = True

    def is_authorized(self, service: Any, msg: mitogen.core.Message) -> bool:
        return True


class AllowParents(Policy):
    """Contexts this process descends from, itself, and streams marked with their authority (mitogen.unix)."""

    immediate = True

    def is_authorized(self, service: Any, msg: mitogen.core.Message) -> bool:
        return msg.auth_id == mitogen.context_id or msg.auth_id in mitogen.parent_ids


class Registrations:
    """Which contexts may have which resource: the table behind RegisteredContexts. Thread-safe.

    A resource is any hashable name (a path, a sha256). Contexts are given as Context objects or as their ids;
    a context whose connection ends is forgotten by the pool (ids are not used twice in a router).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: Dict[Hashable, Set[int]] = {}
        self._resources: Dict[int, Set[Hashable]] = {}

    def register(self, resource: Hashable, contexts: "Iterable[Union[int, mitogen.core.Context]]") -> None:
        """Let *contexts* have *resource*, besides those that already may."""
        ids = [_context_id(context) for context in contexts]
        with self._lock:
            self._contexts.setdefault(resource, set()).update(ids)
            for context_id in ids:
                self._resources.setdefault(context_id, set()).add(resource)

    def withdraw(
        self, resource: Hashable, contexts: "Optional[Iterable[Union[int, mitogen.core.Context]]]" = None
    ) -> None:
        """Take *resource* back from *contexts*, or from all (None). What is not registered is ignored."""
        with self._lock:
            holders = self._contexts.get(resource, set())
            ids = set(holders) if contexts is None else {_context_id(context) for context in contexts}
            for context_id in ids & holders:
                self._unlink(resource, context_id)

    def forget_context(self, context_id: int) -> None:
        """Withdraw everything from one context. Called when its connection has ended."""
        with self._lock:
            for resource in list(self._resources.get(context_id, ())):
                self._unlink(resource, context_id)

    def permits(self, resource: Hashable, context_id: int) -> bool:
        """Whether the context may have the resource."""
        with self._lock:
            return context_id in self._contexts.get(resource, ())

    def contexts(self, resource: Hashable) -> FrozenSet[int]:
        """Ids of the contexts that may have *resource*."""
        with self._lock:
            return frozenset(self._contexts.get(resource, ()))

    def __len__(self) -> int:
        """Number of resources somebody may have."""
        return len(self._contexts)

    def _unlink(self, resource: Hashable, context_id: int) -> None:
        self._contexts[resource].discard(context_id)
        if not self._contexts[resource]:
            del self._contexts[resource]
        self._resources[context_id].discard(resource)
        if not self._resources[context_id]:
            del self._resources[context_id]


class RegisteredContexts(Policy):
    """Only the contexts named when the resource was registered: a target gets what its own tasks offer it.

    Args:
        argument: name of the method's argument that names the resource.
        each: the argument is a list or tuple of resources, and the caller must be registered for all of them.
    The registrations are ``service.registrations`` (a Registrations every Service has). A resource nobody
    registered is refused like one of somebody else: the caller learns nothing about what exists.
    """

    immediate = True

    def __init__(self, argument: str, each: bool = False) -> None:
        if not isinstance(argument, str):
            raise Error("RegisteredContexts needs the name of an argument")
        self.argument = argument
        self.each = each

    def is_authorized(self, service: Any, msg: mitogen.core.Message) -> bool:
        return False  # without the arguments nothing is known about the resource

    def permits(self, service: Any, msg: mitogen.core.Message, kwargs: Dict[str, Any]) -> bool:
        resource = kwargs.get(self.argument)
        resources = resource if self.each and isinstance(resource, (list, tuple)) else [resource]
        try:
            return all(service.registrations.permits(name, msg.src_id) for name in resources)
        except TypeError:  # not hashable: cannot have been registered
            return False


def _context_id(context: "Union[int, mitogen.core.Context]") -> int:
    return context if isinstance(context, int) else int(context.context_id)
