# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Counters and latency histograms of a pool, and the frozen records ``Pool.statistics()`` returns.

Counters are written by pool threads and by the broker thread (hits of a deduplicating service), read by anyone.
One small lock per method; a histogram is a table of few integers, so statistics never grow with the number of calls.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import frexp, ldexp
from typing import Dict, Mapping

_STEPS_PER_OCTAVE = 8  # a bucket is at most 12.5 % wide: enough for percentiles, 330 integers for 1 us .. 12 days


@dataclass(frozen=True)
class Percentiles:
    """Times in seconds; each at most 12.5 % above the true value. All 0.0 while nothing was measured."""

    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    maximum: float = 0.0


@dataclass(frozen=True)
class MethodStatistics:
    """What one exposed method did since the service was added."""

    #: requests that reached the method, whether it ran for them or not (refused ones are in PoolStatistics.refused)
    calls: int = 0
    #: executions that raised; a broadcast error counts once
    errors: int = 0
    #: requests answered from the cache, or by an execution another request had started
    deduplicated: int = 0
    #: executions running now
    in_flight: int = 0
    #: from the request's arrival to the start of its execution
    queue_time: Percentiles = field(default_factory=Percentiles)
    #: of the executions
    run_time: Percentiles = field(default_factory=Percentiles)


@dataclass(frozen=True)
class CacheStatistics:
    """State of a deduplicating service's cache."""

    entries: int
    #: bytes accounted for values, encoded replies and remembered requests
    bytes: int
    hits: int
    evicted: int
    #: executions running now whose answer others may be waiting for
    in_flight: int
    #: requests waiting for them, without a thread
    waiters: int


@dataclass(frozen=True)
class ServiceStatistics:
    """One service of a pool."""

    methods: Mapping[str, MethodStatistics]
    #: None unless the service is a deduplicating one
    cache: "CacheStatistics | None" = None


@dataclass(frozen=True)
class PoolStatistics:
    """One pool."""

    #: number of threads
    size: int
    #: of these, running a call or an on_message now
    busy: int
    #: threads besides these, running deduplicated calls that would have taken the last free one
    aside: int
    #: requests accepted and not answered yet: queued, running, or waiting for another's answer
    pending: int
    #: bytes of the messages of those requests
    pending_bytes: int
    #: requests answered with Overloaded
    overloaded: int
    #: requests answered with any other error before a method ran: malformed, unauthorised, unknown, too late
    refused: int
    #: requests dropped because their caller's connection went away
    dropped: int
    services: Mapping[str, ServiceStatistics]


class Histogram:
    """Log-linear histogram of durations. Not locked: its owner is."""

    __slots__ = ("_buckets", "_count", "_maximum")

    def __init__(self) -> None:
        self._buckets: Dict[int, int] = {}
        self._count = 0
        self._maximum = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration (seconds; less than a microsecond counts as one)."""
        mantissa, exponent = frexp(seconds if seconds > 1e-6 else 1e-6)
        index = exponent * _STEPS_PER_OCTAVE + int(mantissa * (2 * _STEPS_PER_OCTAVE))
        self._buckets[index] = self._buckets.get(index, 0) + 1
        self._count += 1
        if seconds > self._maximum:
            self._maximum = seconds

    def percentiles(self) -> Percentiles:
        """The percentiles of all durations added so far."""
        return Percentiles(self._count, self._at(0.50), self._at(0.90), self._at(0.99), self._maximum)

    def _at(self, share: float) -> float:
        remaining = share * self._count
        for index, count in sorted(self._buckets.items()):
            remaining -= count
            if remaining <= 0:
                return min(_upper_bound(index), self._maximum)
        return self._maximum


class MethodCounters:
    """Live counters of one method; thread-safe."""

    __slots__ = ("_lock", "calls", "errors", "deduplicated", "in_flight", "_queue_time", "_run_time")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0
        self.errors = 0
        self.deduplicated = 0
        self.in_flight = 0
        self._queue_time = Histogram()
        self._run_time = Histogram()

    def began(self, queued: float) -> None:
        """An execution starts, *queued* seconds after its request arrived."""
        with self._lock:
            self.calls += 1
            self.in_flight += 1
            self._queue_time.add(queued)

    def ended(self, ran: float, failed: bool) -> None:
        """An execution ended after *ran* seconds."""
        with self._lock:
            self.in_flight -= 1
            self.errors += failed
            self._run_time.add(ran)

    def shared(self) -> None:
        """A request is answered, or going to be, without an execution of its own."""
        with self._lock:
            self.calls += 1
            self.deduplicated += 1

    def statistics(self) -> MethodStatistics:
        """A frozen copy."""
        with self._lock:
            return MethodStatistics(
                self.calls, self.errors, self.deduplicated, self.in_flight,
                self._queue_time.percentiles(), self._run_time.percentiles(),
            )


def _upper_bound(index: int) -> float:
    # the mantissa is in [0.5, 1), so its step is in [STEPS, 2 * STEPS)
    exponent, step = divmod(index - _STEPS_PER_OCTAVE, _STEPS_PER_OCTAVE)
    return ldexp((step + _STEPS_PER_OCTAVE + 1) / (2 * _STEPS_PER_OCTAVE), exponent)
