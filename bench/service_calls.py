# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Calls per second and latency of our service pool against `mitogen.service.Pool`, in one run.

Run by hand: `python bench/service_calls.py [--rounds 5] [--calls 2000] [--children 1 16]`; prints a table.

1. The same local children serve every contender; a contender is a pool on the same router, closed before the next one.
2. Children call with `mitogen.core.Context.call_service`, one call after another, and report each call's time.
3. Contenders take turns within a round; the table has the median of the rounds, and the ratio to mitogen's pool (for
   hits: to our own plain calls) is the median of the ratios within each round, so that a busy machine hits both alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import mitogen.core
import mitogen.service

from ansible_mitogen_svc.service import AllowAny, DeduplicatingInvoker, Pool, Service, arg_spec, expose

POOL_SIZE = 4


class Plain(Service):
    """Our service with the plain invoker."""

    @expose(policy=AllowAny())
    @arg_spec({"number": int})
    def double(self, number: int) -> int:
        """The smallest useful method: what is measured is the framework."""
        return 2 * number


class Deduplicated(Plain):
    """The same method behind the deduplicating invoker."""

    invoker_class = DeduplicatingInvoker


class Upstream(mitogen.service.Service):  # type: ignore[misc]
    """The same method in mitogen's own framework."""

    @mitogen.service.expose(policy=mitogen.service.AllowAny())
    @mitogen.service.arg_spec({"number": int})
    def double(self, number: int) -> int:
        """As Plain.double."""
        return 2 * number


@mitogen.core.takes_router
def make_calls(service: str, calls: int, router: Any) -> list[float]:
    """In a child: call the master's service one call after another; return each call's seconds."""
    master = mitogen.core.Context(router, 0)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        if master.call_service(service, "double", number=21) != 42:
            raise ValueError("wrong answer")
        times.append(time.perf_counter() - began)
    return times


def open_pool(contender: str, router: Any) -> tuple[Any, str]:
    """A pool with one service, and the service's name."""
    if contender == "mitogen":
        return mitogen.service.Pool(router, [Upstream(router)], size=POOL_SIZE), Upstream.name()
    service = Plain(router) if contender == "plain" else Deduplicated(router)
    return Pool(router, [service], size=POOL_SIZE), service.name()


def measure(contender: str, router: Any, children: list[Any], calls: int) -> tuple[float, float, float]:
    """(calls per second, p50 seconds, p99 seconds) of all children calling at once."""
    pool, name = open_pool(contender, router)
    try:
        for child in children:
            child.call(make_calls, name, 20)
        began = time.perf_counter()
        answers = [child.call_async(make_calls, name, calls // len(children)) for child in children]
        times = sorted(seconds for answer in answers for seconds in answer.get().unpickle())
        elapsed = time.perf_counter() - began
    finally:
        pool.stop(join=True)
    return len(times) / elapsed, times[len(times) // 2], times[len(times) * 99 // 100]


def compare(router: Any, children: list[Any], rounds: int, calls: int) -> None:
    """Measure all contenders, print their rows."""
    figures: dict[str, list[tuple[float, float, float]]] = {"mitogen": [], "plain": [], "hits": []}
    for number in range(rounds):
        order = list(figures) if number % 2 == 0 else list(reversed(figures))
        for contender in order:
            figures[contender].append(measure(contender, router, children, calls))
    labels = {
        "mitogen": ("mitogen.service.Pool, Invoker", "mitogen"), "plain": ("ours, Invoker", "mitogen"),
        "hits": ("ours, deduplicated hits", "plain"),
    }  # fmt: skip
    for contender, rows in figures.items():
        label, reference = labels[contender]
        rate, p50, p99 = (statistics.median(row[column] for row in rows) for column in range(3))
        ratio = statistics.median(a[0] / b[0] for a, b in zip(rows, figures[reference], strict=True))
        against = "" if contender == reference else f"{ratio:.2f} x {reference}"
        print(f"| {len(children):8d} | {label:30s} | {rate:7.0f} | {p50 * 1e6:6.0f} | {p99 * 1e6:6.0f} | {against:15s} |")


def main() -> None:
    """Parse options, start the children, print the table."""
    import mitogen.master

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000, help="calls of all children together per measurement")
    parser.add_argument("--children", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    try:
        children = [router.local(python_path=sys.executable) for _ in range(max(options.children))]
        print("| children | contender                      | calls/s | p50 us | p99 us | ratio           |")
        print("|---------:|--------------------------------|--------:|-------:|-------:|-----------------|")
        for count in options.children:
            compare(router, children[:count], options.rounds, options.calls)
    finally:
        broker.shutdown()
        broker.join()


if __name__ == "__main__":
    main()
