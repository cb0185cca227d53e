# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Calls per second and latency of our service pool against `mitogen.service.Pool`, in one run.

Run by hand: `python bench/service_calls.py [--rounds 5] [--calls 2000] [--children 1 16]`; prints a table.

1. The same local children serve every contender; a contender is a pool on the same router, closed before the next one.
2. Children send what `mitogen.core.Context.call_service` sends: one call after another (that is where latency is
   looked at), and with 16 under way each (where the pool's own limit shows: with one call under way, children on the
   same machine spend two thirds of its CPU on switching between their own threads).
3. Contenders take turns within a round; the table has the median of the rounds, and the ratio to mitogen's pool (for
   hits: to our own plain calls) is the median of the ratios within each round, so that a busy machine hits both alike.
4. "cpu us" is the CPU time of the process with the pool, broker included, per call.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import mitogen.core
import mitogen.service

from ansible_mitogen_svc.service import AllowAny, DeduplicatingInvoker, Pool, Service, arg_spec, expose

POOL_SIZE = 4
#: contender -> (what the table calls it, contender its ratio is against)
LABELS = {
    "mitogen": ("mitogen.service.Pool, Invoker", "mitogen"),
    "plain": ("ours, Invoker", "mitogen"),
    "hits": ("ours, deduplicated hits", "plain"),
}


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
def make_calls(service: str, calls: int, outstanding: int, router: Any) -> list[float]:
    """In a child: call the master's service, keeping *outstanding* calls under way; return each call's seconds.

    Answers may come in another order than the calls, so a call's time is only exact with one outstanding.
    """
    master = mitogen.core.Context(router, 0)
    receiver = mitogen.core.Receiver(router)
    sent: collections.deque[float] = collections.deque()
    request = (service, "double", mitogen.core.Kwargs({"number": 21}))

    def send() -> None:
        sent.append(time.perf_counter())
        master.send(mitogen.core.Message.pickled(request, handle=mitogen.core.CALL_SERVICE, reply_to=receiver.handle))

    for _ in range(outstanding):
        send()
    times = []
    for number in range(calls):
        if receiver.get().unpickle() != 42:
            raise ValueError("wrong answer")
        times.append(time.perf_counter() - sent.popleft())
        if number + outstanding < calls:
            send()
    receiver.close()
    return times


def open_pool(contender: str, router: Any) -> tuple[Any, str]:
    """A pool with one service, and the service's name."""
    if contender == "mitogen":
        return mitogen.service.Pool(router, [Upstream(router)], size=POOL_SIZE), Upstream.name()
    service = Plain(router) if contender == "plain" else Deduplicated(router)
    return Pool(router, [service], size=POOL_SIZE), service.name()


@dataclass(frozen=True)
class Figures:
    """One measurement: calls/s, seconds of latency, and CPU seconds this process spent per call."""

    rate: float
    p50: float
    p99: float
    cpu: float


def measure(contender: str, router: Any, children: list[Any], calls: int, outstanding: int) -> Figures:
    """All children calling at once."""
    pool, name = open_pool(contender, router)
    try:
        for child in children:
            child.call(make_calls, name, 2 * outstanding, outstanding)
        began, cpu = time.perf_counter(), time.process_time()
        each = calls // len(children)
        answers = [child.call_async(make_calls, name, each, outstanding) for child in children]
        times = sorted(seconds for answer in answers for seconds in answer.get().unpickle())
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    finally:
        pool.stop(join=True)
    return Figures(len(times) / elapsed, times[len(times) // 2], times[len(times) * 99 // 100], cpu / len(times))


def compare(router: Any, children: list[Any], rounds: int, calls: int, outstanding: int) -> None:
    """Measure all contenders, print their rows."""
    figures: dict[str, list[Figures]] = {contender: [] for contender in LABELS}
    for number in range(rounds):
        order = list(LABELS) if number % 2 == 0 else list(reversed(LABELS))
        for contender in order:
            figures[contender].append(measure(contender, router, children, calls, outstanding))
    for contender, rows in figures.items():
        label, reference = LABELS[contender]
        rate, p50, p99, cpu = (
            statistics.median(getattr(row, name) for row in rows) for name in ("rate", "p50", "p99", "cpu")
        )
        ratio = statistics.median(a.rate / b.rate for a, b in zip(rows, figures[reference], strict=True))
        against = "" if contender == reference else f"{ratio:.2f} x {reference}"
        print(
            f"| {len(children):8d} | {outstanding:11d} | {label:30s} | {rate:7.0f} | {p50 * 1e6:6.0f} "
            f"| {p99 * 1e6:6.0f} | {cpu * 1e6:6.0f} | {against:14s} |",
            flush=True,
        )


def main() -> None:
    """Parse options, start the children, print the table."""
    import mitogen.master

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000, help="calls of all children together per measurement")
    parser.add_argument("--children", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--outstanding", type=int, nargs="+", default=[1, 16], help="calls each child keeps under way")
    options = parser.parse_args()
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    try:
        children = [router.local(python_path=sys.executable) for _ in range(max(options.children))]
        print(f"| children | outstanding | {'contender':30s} | calls/s | p50 us | p99 us | cpu us | ratio          |")
        print("|---------:|------------:|" + "-" * 32 + "|--------:|-------:|-------:|-------:|----------------|")
        for count in options.children:
            for outstanding in options.outstanding:
                compare(router, children[:count], options.rounds, options.calls, outstanding)
    finally:
        broker.shutdown()
        broker.join()


if __name__ == "__main__":
    main()
