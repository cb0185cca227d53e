# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs ansible-playbook as a child process with a callback that records every result.

Called by the commands `compare` and `clean`, and by the demo. The child has the caller's directory and environment, so
it reads the same ansible.cfg; what that says about callbacks is added to, not replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Directory and name of the callback, and the variable that tells it where to write.
RECORDER = Path(__file__).resolve().with_name("recorder")
RECORDER_NAME = "svc_results"
RESULTS_VARIABLE = "ANSIBLE_MITOGEN_SVC_RESULTS"

#: The two sides of a comparison.
CORE_STRATEGY = "ansible.builtin.linear"
OUR_STRATEGY = "ansible_mitogen.svc.linear"


@dataclass(frozen=True)
class RecordedRun:
    """A finished ansible-playbook: wall time in seconds, exit status, all it printed, and its records.

    `records`: dicts with event, host, task, path and result, in the order of the run. `statistics`: what our strategy
    wrote; empty under core's.
    """

    strategy: str
    seconds: float
    returncode: int
    output: str = field(repr=False)
    records: list[dict[str, Any]] = field(repr=False)
    statistics: dict[str, Any] = field(repr=False)

    @property
    def recap(self) -> str:
        """The lines of core's PLAY RECAP; empty when another callback writes the output."""
        return self.output.partition("PLAY RECAP")[2].partition("\n")[2].partition("\n\n")[0].strip()


def ansible_playbook() -> str:
    """The ansible-playbook of the Python that runs this, or else the first one on PATH."""
    beside = Path(sys.executable).with_name("ansible-playbook")
    return str(beside) if beside.exists() else "ansible-playbook"


def run_recorded(
    arguments: Sequence[str],
    strategy: str,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout: float | None = None,
) -> RecordedRun:
    """Run ``ansible-playbook`` with `arguments` under `strategy`.

    :param environment: the child's whole environment; the caller's by default.
    :param directory: where it runs; the current directory by default.
    :param timeout: seconds.
    :raises FileNotFoundError: there is no ansible-playbook.
    :raises subprocess.TimeoutExpired: it took longer.
    """
    # 0700: results may hold what only -vvv would have shown.
    with tempfile.TemporaryDirectory(prefix="ansible-mitogen-svc-") as place:
        results, counted = Path(place, "results"), Path(place, "statistics")
        given = dict(os.environ if environment is None else environment)
        started = time.monotonic()
        done = subprocess.run(
            [ansible_playbook(), *arguments],
            check=False,
            cwd=directory,
            env={**given, **_recording(given, strategy, results, counted)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        seconds = time.monotonic() - started
        records = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        statistics = json.loads(counted.read_text()) if counted.exists() else {}
    return RecordedRun(strategy, seconds, done.returncode, done.stdout, records, statistics)


def _recording(given: Mapping[str, str], strategy: str, results: Path, counted: Path) -> dict[str, str]:
    enabled, paths = _configured_callbacks(given)
    return {
        "ANSIBLE_STRATEGY": strategy,
        "ANSIBLE_CALLBACK_PLUGINS": os.pathsep.join([str(RECORDER), *paths]),
        "ANSIBLE_CALLBACKS_ENABLED": ",".join([*enabled, RECORDER_NAME]),
        "ANSIBLE_MITOGEN_SVC_STATS": str(counted),
        RESULTS_VARIABLE: str(results),
    }


def _configured_callbacks(given: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Callbacks that the configuration enables, and where it looks for more, when the caller's is the child's."""
    if "ANSIBLE_CONFIG" in given and given["ANSIBLE_CONFIG"] != os.environ.get("ANSIBLE_CONFIG"):
        return [], []
    from ansible import constants

    enabled = constants.config.get_config_value("CALLBACKS_ENABLED") or []
    paths = constants.config.get_config_value("DEFAULT_CALLBACK_PLUGIN_PATH") or []
    return [str(name) for name in enabled], [str(path) for path in paths]
