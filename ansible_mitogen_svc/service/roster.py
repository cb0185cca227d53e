# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The services of one pool: name -> invoker, their activation, and the aggregate Select over all their Selects.

Written under its lock by whoever adds a service (the program, or a pool thread that activates one); read without it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional

import mitogen.core
import mitogen.select

from .deduplicate import DeduplicatingInvoker
from .errors import Error, InvalidRequest
from .foreign import ForeignInvoker
from .service import Service
from .statistics import ServiceStatistics

if TYPE_CHECKING:
    from .activator import Activator
    from .pool import Pool

LOG = logging.getLogger(__name__)


class Roster:
    """See the module's text. *schedule* has a function run by a pool thread; it is called from any thread. For
    *run_aside* see Pool."""

    def __init__(
        self, activator: "Activator", default_deadline: Optional[float],
        schedule: Callable[[Callable[[], None]], None], run_aside: Callable[[Callable[[], None]], bool],
    ) -> None:
        self._activator = activator
        self._default_deadline = default_deadline
        self._run_aside = run_aside
        self._lock = threading.RLock()
        self._invokers: Dict[str, Any] = {}
        self._service_of: Dict[mitogen.select.Select, Service] = {}
        #: request bytes -> function that answers such a message; looked into by the broker thread
        self.fast_replies: Dict[bytes, Callable[[mitogen.core.Message], bool]] = {}
        self.select = mitogen.select.Select(oneshot=False)
        self.select.notify = lambda _select: schedule(self.deliver_event)

    def add(self, service: Any, name: str) -> Any:
        """Take *service* under *name*; return its invoker. Raises Error when the name is taken."""
        with self._lock:
            if name in self._invokers:
                raise Error(f"the pool already has a service named {name!r}")
            if isinstance(service, Service):
                invoker: Any = service.create_invoker()
                invoker.default_deadline = self._default_deadline
                if isinstance(invoker, DeduplicatingInvoker):
                    invoker.join_pool(self.fast_replies, self._run_aside)
                service._invoker = weakref.ref(invoker)
                self._service_of[service.select] = service
                self.select.add(service.select)
            else:
                invoker = ForeignInvoker(service.invoker_class(service=service))
            self._invokers[name] = invoker
            return invoker

    def adopt(self, name: str, upstream: Any) -> None:
        """Take over an invoker of mitogen's own pool, unless the name is taken."""
        with self._lock:
            self._invokers.setdefault(name, ForeignInvoker(upstream))

    def known(self, name: Optional[str]) -> Any:
        """The invoker of an active service, else None."""
        return self._invokers.get(name) if name is not None else None

    def find(self, pool: "Pool", name: str, msg: Optional[mitogen.core.Message]) -> Any:
        """The invoker of *name*, activating the service for a caller who may. Raises what the activator raises."""
        invoker = self._invokers.get(name)
        if invoker is None:
            with self._lock:
                invoker = self._invokers.get(name)
                if invoker is None:
                    invoker = self.add(self._activator.activate(pool, name, msg), name)
        return invoker

    def deliver_event(self) -> None:
        """Hand one event of the aggregate Select to its service. In a pool thread."""
        try:
            event = self.select.get_event(block=False)
        except mitogen.core.Error:
            return  # another thread took it, or the Select was closed
        service = self._service_of.get(event.select)
        if service is None:
            raise InvalidRequest(f"{event.source!r} belongs to no service")
        try:
            service.on_message(event)
        except Exception:
            LOG.exception("%r: on_message() failed", service)

    def forget_context(self, context_id: int) -> None:
        """The connection of a context has ended. In the broker thread."""
        for service in list(self._service_of.values()):
            service.registrations.forget_context(context_id)
            try:
                service.on_disconnect(context_id)
            except Exception:
                LOG.exception("%r: on_disconnect() failed", service)

    def close(self) -> None:
        """Shut the services down. Once, after the last pool thread has left its work."""
        self.select.close()
        self.select.notify = None
        self.fast_replies.clear()
        self._run_aside = _no_thread
        for invoker in self.invokers():
            try:
                invoker.service.on_shutdown()
            except Exception:
                LOG.exception("%r: on_shutdown() failed", invoker.service)
            invoker.service.select.close()
            if isinstance(invoker, DeduplicatingInvoker):
                invoker.leave_pool()
        self._service_of.clear()

    def invokers(self) -> List[Any]:
        """The invokers of all active services."""
        return list(self._invokers.values())

    def statistics(self) -> Mapping[str, ServiceStatistics]:
        """Per service."""
        return {name: invoker.statistics() for name, invoker in list(self._invokers.items())}


def _no_thread(function: Callable[[], None]) -> bool:
    return False
