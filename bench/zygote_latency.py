# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Measures a zygote over plain pipes: no ssh, no mitogen, no controller.

    python bench/zygote_latency.py [--python /usr/bin/python3] [--runs 200]

Prints, per module, the wall milliseconds from sending a job to having its reply (minimum, median, 90th percentile), the
CPU milliseconds per job of all processes on the zygote's side, and the times of a zygote's start. Minima are what a
busy machine still tells truly.
"""
from __future__ import annotations

import argparse
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'unit' / 'target')]

import zygote_client  # noqa: E402  found only now

PAUSE = 0.015
"""Between jobs, so that the spare child is there: what a playbook's controller takes anyway."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', default=sys.executable, help="the target's interpreter")
    parser.add_argument('--runs', type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        target = pathlib.Path(directory, 'file')
        target.write_text('a line\n')
        names = [('ping', {}), ('command', {'_raw_params': 'true'}),
                 ('stat', {'path': '/etc/passwd', 'get_mime': False}), ('file', {'path': str(target), 'mode': '0644'}),
                 ('lineinfile', {'path': str(target), 'line': 'a line'}), ('setup', {'gather_subset': 'min'})]
        modules = zygote_client.build(sys.executable, names)
        store = str(pathlib.Path(directory, 'store'))
        print(f'target {options.python}')
        _report_start('first ever', options.python, store, modules[0], install=True)
        for _ in range(3):
            _report_start('with a warm store', options.python, store, modules[0], install=False)
        print(f'{"module":12} {"first":>8} {"min":>8} {"median":>8} {"p90":>8} {"cpu/job":>8}   ms')
        for (name, _), module in zip(names, modules, strict=True):
            _report_module(name, module, options.python, store, options.runs)


def _report_start(label: str, python: str, store: str, module: zygote_client.Module, install: bool) -> None:
    begun = time.monotonic()
    with zygote_client.ZygoteProcess(python, store) as zygote:
        hello = time.monotonic() - begun
        if install:
            zygote.install(module)
        replied = zygote.run(module).arrived - begun
    print(f'start {label}: hello {hello * 1e3:.1f} ms, first reply {replied * 1e3:.1f} ms')


def _report_module(name: str, module: zygote_client.Module, python: str, store: str, runs: int) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with zygote_client.ZygoteProcess(python, store) as zygote:
        zygote.install(module)
        first = _timed(lambda: zygote.run(module))
        times = []
        for _ in range(runs):
            time.sleep(PAUSE)
            times.append(_timed(lambda: zygote.run(module)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / (runs + 1) * 1e3
    times.sort()
    figures = (first, times[0], statistics.median(times), times[int(runs * 0.9)], cpu)
    print(f'{name:12}' + ''.join(f' {figure:8.2f}' for figure in figures))


def _timed(run: Callable[[], zygote_client.Reply]) -> float:
    begun = time.monotonic()
    return (run().arrived - begun) * 1e3


if __name__ == '__main__':
    main()
