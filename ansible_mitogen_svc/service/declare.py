# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How a service declares its methods, and what the framework knows about each of them.

The decorators run at import time and only leave marks on the function. They use the attribute names of
``mitogen.service``, so a service written for either framework can be hosted by both. ExposedMethod is built once
per method and service instance by the invoker, and read by pool threads.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, TypeVar, Union

import mitogen.core

from .errors import Error, InvalidRequest, Unauthorized
from .policy import Policy
from .statistics import MethodCounters

Function = TypeVar("Function", bound=Callable[..., Any])
ArgumentType = Union[type, Tuple[type, ...]]


def expose(policy: Policy) -> Callable[[Function], Function]:
    """Let contexts that satisfy *policy* call the method. May be stacked: then all policies must agree.

    A method without it cannot be called from outside. An overriding method needs its own. Raises Error when
    *policy* is not a policy (say, the class instead of an instance).
    """
    if not hasattr(policy, "is_authorized") or isinstance(policy, type):
        raise Error(f"expose() needs an instance of a Policy, got {policy!r}")

    def mark(function: Function) -> Function:
        stacked = [policy, *getattr(function, "mitogen_service__policies", [])]
        function.mitogen_service__policies = stacked  # type: ignore[attr-defined]
        return function

    return mark


def arg_spec(spec: Mapping[str, ArgumentType]) -> Callable[[Function], Function]:
    """Require arguments by name and type (a class or a tuple of classes) before the method runs.

    A caller that leaves one out or sends another type gets InvalidRequest, which names the argument, the type
    expected and the type received, never the value. Arguments not listed are checked against the signature only.
    """
    for name, types in spec.items():
        if not isinstance(types, type) and not (isinstance(types, tuple) and all(isinstance(t, type) for t in types)):
            raise Error(f"arg_spec: the type of {name!r} must be a class or a tuple of classes")

    def mark(function: Function) -> Function:
        function.mitogen_service__arg_spec = dict(spec)  # type: ignore[attr-defined]
        return function

    return mark


def no_reply() -> Callable[[Function], Function]:
    """Send no reply when the method returns or raises (it is logged then). Refused calls are still answered."""

    def mark(function: Function) -> Function:
        function.mitogen_service__no_reply = True  # type: ignore[attr-defined]
        return function

    return mark


def deadline(seconds: float) -> Callable[[Function], Function]:
    """Answer callers with DeadlineExceeded when *seconds* after its arrival a request has no answer.

    A caller's own deadline counts when it is shorter; the pool's default does not count any more.
    """

    def mark(function: Function) -> Function:
        function.service_deadline = float(seconds)  # type: ignore[attr-defined]
        return function

    return mark


def not_deduplicated() -> Callable[[Function], Function]:
    """Run the method for each request although its service deduplicates: for one that changes something."""

    def mark(function: Function) -> Function:
        function.service_not_deduplicated = True  # type: ignore[attr-defined]
        return function

    return mark


class ExposedMethod:
    """One exposed method of one service instance."""

    __slots__ = (
        "name", "function", "policies", "types", "no_reply", "takes_message", "deadline", "deduplicated",
        "immediate", "counters", "_accepted", "_required",
    )

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self.policies: Tuple[Any, ...] = tuple(function.mitogen_service__policies)  # type: ignore[attr-defined]
        self.types: Dict[str, ArgumentType] = getattr(function, "mitogen_service__arg_spec", {})
        self.no_reply: bool = getattr(function, "mitogen_service__no_reply", False)
        self.deadline: Optional[float] = getattr(function, "service_deadline", None)
        self.deduplicated = not getattr(function, "service_not_deduplicated", False) and not self.no_reply
        self.immediate = all(getattr(policy, "immediate", False) for policy in self.policies)
        self.counters = MethodCounters()
        parameters = inspect.signature(function).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.takes_message = any(p.name == "msg" for p in named)
        self._required = frozenset(p.name for p in named if p.default is p.empty and p.name != "msg")
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._accepted = None if takes_any else frozenset(p.name for p in named if p.name != "msg")

    def check_arguments(self, kwargs: Mapping[str, Any]) -> None:
        """Raise InvalidRequest, naming the first argument that is missing, unknown or of a wrong type."""
        for name, types in self.types.items():
            if name not in kwargs:
                raise InvalidRequest(f"{self.name}(): argument {name!r} is missing, expected {_type_names(types)}")
            if not isinstance(kwargs[name], types):
                raise InvalidRequest(
                    f"{self.name}(): argument {name!r} has the wrong type, "
                    f"expected {_type_names(types)}, got {type(kwargs[name]).__name__}"
                )
        if not self._required <= kwargs.keys():
            raise InvalidRequest(f"{self.name}(): argument {min(self._required - kwargs.keys())!r} is missing")
        if "msg" in kwargs and self.takes_message:
            raise InvalidRequest(f"{self.name}(): argument 'msg' is set by the framework")
        if self._accepted is not None and not kwargs.keys() <= self._accepted:
            raise InvalidRequest(f"{self.name}(): unknown argument {min(kwargs.keys() - self._accepted)[:100]!r}")

    def check_caller(self, service: Any, message: mitogen.core.Message, kwargs: Dict[str, Any]) -> None:
        """Raise Unauthorized unless every policy agrees."""
        for policy in self.policies:
            permits = getattr(policy, "permits", None)
            agreed = permits(service, message, kwargs) if permits else policy.is_authorized(service, message)
            if not agreed:
                raise Unauthorized(f"the caller may not call {self.name}() of {service.name()}")


def exposed_method(service: Any, name: str) -> Optional[ExposedMethod]:
    """The ExposedMethod *name* of *service*, None when there is no such method or it is not exposed."""
    if name.startswith("__") or not callable(getattr(type(service), name, None)):
        return None
    function = getattr(service, name)
    return ExposedMethod(name, function) if getattr(function, "mitogen_service__policies", None) else None


def _type_names(types: ArgumentType) -> str:
    return " or ".join(t.__name__ for t in types) if isinstance(types, tuple) else types.__name__
