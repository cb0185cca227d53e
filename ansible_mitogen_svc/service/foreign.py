# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Hosting services written for ``mitogen.service`` in our pool (its FileService, say). Runs in pool threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict

import mitogen.core

from .errors import failure_from_exception
from .statistics import MethodCounters, ServiceStatistics

if TYPE_CHECKING:
    from .request import Request


class ForeignInvoker:
    """Puts an invoker of ``mitogen.service`` behind the interface of ours: it checks and answers by itself."""

    serialized = False

    def __init__(self, invoker: Any) -> None:
        self.upstream = invoker
        self.service = invoker.service
        self.refused = 0
        self.default_deadline = None
        self._counters: Dict[str, MethodCounters] = {}

    def handle(self, request: "Request") -> None:
        """Let the other framework's invoker serve *request*. Never raises."""
        began = time.monotonic()
        counters = self._counters_of(request.method)
        counters.began(began - request.arrived)
        failed = True
        try:
            if request.message is None:
                request.answer(getattr(self.service, request.method)(**request.kwargs))
            else:
                self.upstream.invoke(request.method, mitogen.core.Kwargs(request.kwargs), request.message)
                request.close()
            failed = False
        except BaseException as exc:  # the caller is answered whatever the service raises
            request.fail(failure_from_exception(exc))
        finally:
            counters.ended(time.monotonic() - began, failed)

    def abandon(self, request: "Request") -> None:
        """The other framework has no such notion."""

    def statistics(self) -> ServiceStatistics:
        """Figures of the methods called so far."""
        return ServiceStatistics({name: counters.statistics() for name, counters in list(self._counters.items())})

    def _counters_of(self, method: str) -> MethodCounters:
        known = getattr(getattr(type(self.service), method, None), "mitogen_service__policies", None)
        return self._counters.setdefault(method if known else "(other)", MethodCounters())
