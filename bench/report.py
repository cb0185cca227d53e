# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Turns measurements into medians, ratios, a markdown table and a JSON document.

Called by `bench/run.py` at the end (and after each scenario, so that an interrupted benchmark leaves what it has).
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata

from contenders import Contender
from measure import Measurement
from scenarios import Scenario


@dataclass
class Results:
    """All measurements of one benchmark: scenario name -> contender name -> runs in order."""

    scenarios: list[Scenario]
    contenders: list[Contender]
    runs: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)
    # What ours said of its warm-up run (ANSIBLE_MITOGEN_SVC_STATS), by scenario.
    statistics: dict[str, object] = field(default_factory=dict)

    def add(self, scenario: Scenario, contender: Contender, measurement: Measurement) -> None:
        self.runs.setdefault(scenario.name, {}).setdefault(contender.name, []).append(measurement)

    def all_good(self) -> bool:
        """Whether every counted run succeeded."""
        return all(run.good for named in self.runs.values() for runs in named.values() for run in runs)

    def good_runs(self, scenario: str, contender: str) -> list[Measurement]:
        return [run for run in self.runs.get(scenario, {}).get(contender, []) if run.good]

    def median(self, scenario: str, contender: str, quantity: str) -> float | None:
        """The median in seconds of `wall`, `controller_cpu` or `machine_cpu` over the runs that succeeded."""
        values = [getattr(run, quantity) for run in self.good_runs(scenario, contender)]
        return statistics.median(values) if values else None

    def ratio(self, scenario: str, contender: str, other: str, quantity: str = "wall") -> float | None:
        ours, theirs = self.median(scenario, contender, quantity), self.median(scenario, other, quantity)
        return ours / theirs if ours is not None and theirs else None


def markdown(results: Results) -> str:
    """One table: per scenario and contender wall / controller CPU / machine CPU, then the ratios of the wall times."""
    pairs = [
        (left, right) for index, right in enumerate(results.contenders) for left in results.contenders[index + 1 :]
    ]
    heading = ["scenario", *(contender.title for contender in results.contenders)]
    heading += [f"{left.name} / {right.name}" for left, right in pairs]
    rows = [heading, ["---"] + ["---:"] * (len(heading) - 1)]
    for scenario in results.scenarios:
        if scenario.name not in results.runs:
            continue
        row = [scenario.title]
        row += [cell(results, scenario.name, contender.name) for contender in results.contenders]
        row += [as_number(results.ratio(scenario.name, left.name, right.name)) for left, right in pairs]
        rows.append(row)
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    most = max((len(runs) for named in results.runs.values() for runs in named.values()), default=0)
    return (
        f"Seconds: wall / controller CPU / CPU of the whole machine; medians of {most} interleaved runs after one\n"
        f"warm-up run. Ratios are of wall times: below 1 the first is faster.\n{describe_environment()}\n\n{table}\n"
    )


def cell(results: Results, scenario: str, contender: str) -> str:
    runs = results.runs.get(scenario, {}).get(contender, [])
    if not runs:
        return "-"
    quantities = ("wall", "controller_cpu", "machine_cpu")
    text = " / ".join(as_number(results.median(scenario, contender, quantity)) for quantity in quantities)
    failed = sum(not run.good for run in runs)
    return text if not failed else f"{text} ({failed} of {len(runs)} failed)"


def as_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def describe_environment() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("ansible-core", "mitogen"))
    python = platform.python_version()
    return f"{versions}, Python {python}, {os.cpu_count()} processors shared by controller and hosts."


def version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def as_json(results: Results) -> str:
    measured = [scenario for scenario in results.scenarios if scenario.name in results.runs]
    document = {
        "environment": describe_environment(),
        "scenarios": [summary(results, scenario) for scenario in measured],
    }
    return json.dumps(document, indent=1)


def summary(results: Results, scenario: Scenario) -> dict[str, object]:
    names = [contender.name for contender in results.contenders]
    return {
        "name": scenario.name,
        "title": scenario.title,
        "hosts": scenario.hosts,
        "contenders": {name: contender_summary(results, scenario.name, name) for name in names},
        "wall_ratios": {
            f"{left}/{right}": results.ratio(scenario.name, left, right)
            for index, right in enumerate(names)
            for left in names[index + 1 :]
        },
        "statistics": results.statistics.get(scenario.name),
    }


def contender_summary(results: Results, scenario: str, contender: str) -> dict[str, object]:
    quantities: Iterable[str] = ("wall", "controller_cpu", "machine_cpu")
    return {
        "median": {quantity: results.median(scenario, contender, quantity) for quantity in quantities},
        "runs": [run.as_dict() for run in results.runs.get(scenario, {}).get(contender, [])],
    }
