# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""TallyService: takes the statistics of forked workers. Runs on the Session's Pool."""

from __future__ import annotations

from typing import Any

from ansible_mitogen_svc import service
from ansible_mitogen_svc.statistics import counters


class TallyService(service.Service):
    """See the module."""

    @service.expose(service.AllowParents())
    @service.arg_spec({"counts": list, "round_trips": list, "spans": list})
    def add(self, counts: list[Any], round_trips: list[int], spans: list[Any]) -> None:
        """Add what `Counters.take` of a worker gave; answered, so that the worker does not exit too soon."""
        counters.merge({"counts": counts, "round_trips": round_trips, "spans": spans})
