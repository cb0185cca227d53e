# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Calls per second and latency of our service pool against `mitogen.service.Pool`, in one run.

Run by hand: `python bench/service_calls.py [--rounds 5] [--calls 2000] [--children 1 16]`; prints a table.

1. The same local children serve every contender; a contender is a pool on the same router, closed before the next one.
2. Children send what `mitogen.core.Context.call_service` sends: one call after another (that is where latency is
   looked at), and with 16 under way each (where the pool's own limit shows: with one call under way, children on the
   same machine spend two thirds of its CPU on switching between their own threads).
3. Contenders take turns within a round; the table has the median of the rounds, and a ratio to another contender is the
   median of the ratios within each round, so that a busy machine hits both alike.
4. "cpu us" is the CPU time of the process with the pool, broker included, per call.
5. "double" is the smallest method there can be, so that the framework is measured and nothing else; "digest" takes
   about 0.1 ms of computing: little for something one wants to have deduplicated. Their hits cost the same.
6. The last contender is no pool: a handler that sends every caller the same bytes from the broker thread, without a
   look at the request. It is the floor of all that mitogen's router carries: the child's threads, pipes, our broker.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
import sys
import time
import zlib
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import mitogen.core
import mitogen.service

from ansible_mitogen_svc.service import AllowAny, DeduplicatingInvoker, Pool, Service, arg_spec, expose

POOL_SIZE = 4
#: contender -> (what the table calls it, contenders its ratios are against)
LABELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mitogen": ("mitogen.service.Pool, double", ()),
    "plain": ("ours, Invoker, double", ("mitogen",)),
    "work": ("ours, Invoker, digest", ()),
    "hits": ("ours, deduplicated hits", ("plain", "work", "floor")),
    "floor": ("floor: an answer, no pool", ()),
}
CONTENT = b"\0" * 200_000


class Plain(Service):
    """Our service with the plain invoker."""

    @expose(policy=AllowAny())
    @arg_spec({"number": int})
    def double(self, number: int) -> int:
        """The smallest useful method: what is measured is the framework."""
        return 2 * number

    @expose(policy=AllowAny())
    @arg_spec({"number": int})
    def digest(self, number: int) -> int:
        """A method that costs something."""
        return 2 * number + 0 * zlib.crc32(CONTENT)


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
def make_calls(service: str, method: str, calls: int, outstanding: int, router: Any) -> list[float]:
    """In a child: call a method of the master's, keeping *outstanding* calls under way; return the seconds of each.

    Answers may come in another order than the calls, so a call's time is only exact with one outstanding.
    """
    master = mitogen.core.Context(router, 0)
    receiver = mitogen.core.Receiver(router)
    sent: collections.deque[float] = collections.deque()
    request = (service, method, mitogen.core.Kwargs({"number": 21}))

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


class Floor:
    """The least a router can do for a caller; opened and closed like a pool."""

    def __init__(self, router: Any) -> None:
        self._router = router
        self._answer = mitogen.core.Message.pickled(42).data
        router.add_handler(self._reply, handle=mitogen.core.CALL_SERVICE)

    def _reply(self, msg: Any) -> None:
        if not msg.is_dead:
            reply = mitogen.core.Message(
                enc=mitogen.core.Message.ENC_PKL, data=self._answer, dst_id=msg.src_id, handle=msg.reply_to,
            )
            self._router.route(reply)

    def stop(self, join: bool) -> None:
        """Make room for the next contender."""
        self._router.del_handler(mitogen.core.CALL_SERVICE)


def open_pool(contender: str, router: Any) -> tuple[Any, str]:
    """A pool with one service, and the service's name."""
    if contender == "mitogen":
        return mitogen.service.Pool(router, [Upstream(router)], size=POOL_SIZE), Upstream.name()
    if contender == "floor":
        return Floor(router), Plain.name()
    service = Deduplicated(router) if contender == "hits" else Plain(router)
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
    method = "digest" if contender == "work" else "double"
    try:
        for child in children:
            child.call(make_calls, name, method, 2 * outstanding, outstanding)
        began, cpu = time.perf_counter(), time.process_time()
        each = calls // len(children)
        answers = [child.call_async(make_calls, name, method, each, outstanding) for child in children]
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
        label, references = LABELS[contender]
        rate, p50, p99, cpu = (
            statistics.median(getattr(row, name) for row in rows) for name in ("rate", "p50", "p99", "cpu")
        )
        ratios = {
            reference: statistics.median(a.rate / b.rate for a, b in zip(rows, figures[reference], strict=True))
            for reference in references
        }
        against = ", ".join(f"{ratio:.2f} x {reference}" for reference, ratio in ratios.items())
        print(
            f"| {len(children):8d} | {outstanding:11d} | {label:29s} | {rate:7.0f} | {p50 * 1e6:6.0f} "
            f"| {p99 * 1e6:6.0f} | {cpu * 1e6:6.0f} | {against:39s} |",
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
        columns = f"{'contender':29s} | calls/s | p50 us | p99 us | cpu us | {'calls/s against':39s} |"
        print(f"| children | outstanding | {columns}")
        print("|---------:|------------:|" + "-" * 31 + "|--------:|-------:|-------:|-------:|" + "-" * 41 + "|")
        for count in options.children:
            for outstanding in options.outstanding:
                compare(router, children[:count], options.rounds, options.calls, outstanding)
    finally:
        broker.shutdown()
        broker.join()


if __name__ == "__main__":
    main()
