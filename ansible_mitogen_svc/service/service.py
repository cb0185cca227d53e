# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The base class of services, and the Select each service has for further sources of messages.

A Service is constructed by hand in a parent, or by the pool's activator in a child; its methods run in pool threads.
"""

from __future__ import annotations

import weakref
from typing import Any, Optional, Type

import mitogen.core
import mitogen.select

from .errors import Error
from .invoker import Invoker
from .policy import Registrations


class ServiceEvent(mitogen.select.Event):  # type: ignore[misc]
    """What on_message receives: ``source`` (the receiver or latch) and ``data`` (message or latch's object).

    When the other side of a receiver closed it or its connection ended, ``data`` is a dead message
    (``event.data.is_dead``), delivered like any other.
    """

    #: the ServiceSelect it came through
    select: "Optional[ServiceSelect]" = None


class ServiceSelect(mitogen.select.Select):  # type: ignore[misc]
    """A Select that keeps its receivers until they are removed, and reports dead messages instead of raising."""

    def __init__(self) -> None:
        super().__init__(oneshot=False)

    def get_event(self, timeout: Optional[float] = None, block: bool = True) -> ServiceEvent:
        """The next event of any source. Raises mitogen's TimeoutError when there is none, LatchError when closed."""
        while True:
            source = self._latch.get(timeout=timeout, block=block)
            if source.notify != self._put:
                continue  # removed after it had announced a message
            event = ServiceEvent()
            event.source, event.select = source, self
            try:
                if isinstance(source, mitogen.select.Select):
                    nested = source.get_event(block=False)
                    event.source, event.data = nested.source, nested.data
                elif isinstance(source, mitogen.core.Receiver):
                    event.data = source.get(block=False, throw_dead=False)
                    event.data.receiver = source
                else:
                    event.data = source.get(block=False)
            except (mitogen.core.TimeoutError, mitogen.core.ChannelError, mitogen.core.LatchError):
                continue  # another thread took it, or the source was closed meanwhile
            return event


class Service:
    """A class whose exposed methods other processes call.

    Subclasses mark methods with ``@expose(policy)`` and choose how calls are run with ``invoker_class``. Methods
    run in threads of the pool, several at a time unless the invoker says otherwise.
    """

    #: A method returns it to send no reply at this time: it has replied itself (``msg.reply``), or is going to.
    NO_REPLY = object()

    #: Invoker, SerializedInvoker, DeduplicatingInvoker or a subclass of one.
    invoker_class: Type[Invoker] = Invoker

    def __init__(self, router: mitogen.core.Router) -> None:
        self.router = router
        #: Further receivers and latches this service wants to hear of; add and remove at any time.
        self.select = ServiceSelect()
        #: Which contexts may have which resource, for the policy RegisteredContexts.
        self.registrations = Registrations()
        self._invoker: "Optional[weakref.ref[Invoker]]" = None

    @classmethod
    def name(cls) -> str:
        """The name callers use: module and class, as Python's import knows them."""
        return f"{cls.__module__}.{cls.__name__}"

    @property
    def invoker(self) -> Any:
        """The invoker that runs this service's calls. Raises Error while no pool has the service."""
        invoker = self._invoker() if self._invoker is not None else None
        if invoker is None:
            raise Error(f"{self.name()} is not part of a pool")
        return invoker

    def create_invoker(self) -> Invoker:
        """Construct the invoker, once, when a pool takes the service. Override it to pass settings."""
        return self.invoker_class(service=self)

    def on_message(self, event: ServiceEvent) -> None:
        """Called in a pool thread for each message that arrives at a source added to ``select``."""

    def on_disconnect(self, context_id: int) -> None:
        """Called in the broker thread when the connection of a context that called this pool ended: don't block."""

    def on_shutdown(self) -> None:
        """Called once, after the pool's last thread has left its work."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
