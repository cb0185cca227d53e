# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""TallyService: takes what forked workers leave, statistics and news of targets. Runs on the Session's Pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mitogen.core

from ansible_mitogen_svc import service
from ansible_mitogen_svc.statistics import counters


class TallyService(service.Service):
    """See the module. `learn`: takes the news, a list of (key, context id, name, news) of targets."""

    def __init__(self, router: mitogen.core.Router, learn: Callable[[list[Any]], None]) -> None:
        super().__init__(router)
        self._learn = learn

    @service.expose(service.AllowParents())
    @service.arg_spec({"counts": list, "round_trips": list, "spans": list, "targets": list})
    def add(self, counts: list[Any], round_trips: list[int], spans: list[Any], targets: list[Any]) -> None:
        """Add what `Counters.take` of a worker gave, and take what it learned of targets.

        Answered, so that the worker does not exit too soon, and its successor knows what it knew.
        """
        counters.merge({"counts": counts, "round_trips": round_trips, "spans": spans})
        self._learn(targets)
