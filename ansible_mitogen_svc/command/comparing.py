# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""``ansible-mitogen-svc compare``: one playbook under core's linear strategy and under ours.

Runs in the command's process; each run is an ansible-playbook of its own.

Theory of operation
1. In check mode nothing changes, so both runs find the hosts alike. For real, one run under core comes first and is not
   compared: it brings the hosts to where the playbook wants them, and both compared runs find them there.
2. With ``--reset COMMAND`` the command restores the hosts before each run instead, and the first run is compared, too.
3. A play that names its strategy itself runs under that one both times; it is reported, as it says nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ansible_mitogen_svc.command.outcome import BAD, FINE, CommandError, core_constants, end_of
from ansible_mitogen_svc.comparison.recording import CORE_STRATEGY, OUR_STRATEGY, RecordedRun, run_recorded
from ansible_mitogen_svc.comparison.results import COMMON_TOLERANCES, Tolerance, compare


def add_to(commands: Any) -> None:
    """Define the subcommand's part of the command line."""
    # The playbook is among what goes to ansible-playbook, wherever it stands: only that knows which of its options take
    # a value, so which of `-i hosts.yml site.yml` is the playbook. For the same reason nothing may be abbreviated.
    parser = commands.add_parser(
        "compare",
        usage="%(prog)s (-C | --real) [options] PLAYBOOK [options of ansible-playbook]",
        allow_abbrev=False,
        help="run a playbook under core's linear strategy and under ours, and compare",
        description=(
            "Runs a playbook under ansible.builtin.linear and under ansible_mitogen.svc.linear; prints the times and "
            "every difference of the results. All options that are not listed here go to ansible-playbook."
        ),
        epilog="Example: ansible-mitogen-svc compare --check -i hosts.yml --limit web site.yml",
    )
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("-C", "--check", action="store_true", help="in check mode: nothing is changed on the hosts")
    how.add_argument(
        "--real",
        action="store_true",
        help="for real; a first run under core, which is not compared, brings the hosts to their final state",
    )
    parser.add_argument("--reset", metavar="COMMAND", help="with --real: a shell command that restores the hosts")
    parser.add_argument("--rounds", type=_positive, default=1, metavar="N", help="runs of each strategy (default: 1)")
    parser.add_argument("--show-all", action="store_true", help="print all differences, not the first 20")
    parser.set_defaults(run=run, passes_on=True, refuse=parser.error)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return int(text)


def run(options: argparse.Namespace, passed_on: list[str]) -> int:
    """The subcommand; returns the exit status. :raises CommandError: nothing could be compared."""
    if options.reset and not options.real:
        options.refuse("--reset belongs to --real: check mode leaves nothing to restore.")
    behind = passed_on[passed_on.index("--") + 1 :] if "--" in passed_on else []
    if not behind and all(word.startswith("-") for word in passed_on):
        options.refuse("a PLAYBOOK is required")
    if core_constants().DEFAULT_NO_LOG:
        raise CommandError("no_log is on (ANSIBLE_NO_LOG, or ansible.cfg): it hides all results; turn it off for this.")
    # In front: behind a `--` among them it would be a playbook.
    arguments = [*(["--check"] if options.check else []), *passed_on]
    if options.real and not options.reset:
        _run(CORE_STRATEGY, arguments, "to bring the hosts to their final state", None)
    runs: dict[str, list[RecordedRun]] = {CORE_STRATEGY: [], OUR_STRATEGY: []}
    for number in range(1, options.rounds + 1):
        for strategy, done in runs.items():
            done.append(_run(strategy, arguments, f"{number} of {options.rounds}", options.reset))
    return report(runs[CORE_STRATEGY], runs[OUR_STRATEGY], None if options.show_all else 20)


def _run(strategy: str, arguments: list[str], purpose: str, reset: str | None) -> RecordedRun:
    if reset:
        done = subprocess.run(reset, shell=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise CommandError(f"the command of --reset ended with {done.returncode}: {reset}")
    print(f"running under {strategy}, {purpose} ...", file=sys.stderr, flush=True)
    try:
        finished = run_recorded(arguments, strategy)
    except FileNotFoundError:
        raise CommandError("ansible-playbook was not found; install ansible-core beside this command.") from None
    if not any(record["event"] not in ("play", "stats") for record in finished.records):
        said = end_of(finished.output)
        raise CommandError(f"no task ran under {strategy} (exit status {finished.returncode}):\n{said}")
    return finished


def report(
    core: list[RecordedRun], ours: list[RecordedRun], shown: int | None, tolerances: Sequence[Tolerance] = ()
) -> int:
    """Print times, recaps and differences of two lists of runs; returns the exit status.

    :param shown: how many differences, None for all.
    :param tolerances: what may differ beside `COMMON_TOLERANCES`.
    """
    for runs in (core, ours):
        times = "  ".join(f"{run.seconds:.2f} s" for run in runs)
        print(f"{runs[0].strategy}: {times}")
        for recap in dict.fromkeys(run.recap for run in runs):
            print("".join(f"  {line}\n" for line in recap.splitlines()), end="")
    _print_paths(ours[-1])
    fixed = sorted(_fixed_strategies(core[0]))
    for name, strategy in fixed:
        print(f"note: the play {name!r} names its strategy itself ({strategy}) and ran under it both times")
    before, after = _median(core), _median(ours)
    print(f"time: {after / before:.2f} of core's ({before:.2f} s -> {after:.2f} s)")
    differences = _differences(core, ours, (*COMMON_TOLERANCES, *tolerances))
    _print_differences(differences, len(core[0].records), shown)
    return BAD if differences else FINE


def _median(runs: list[RecordedRun]) -> float:
    return sorted(run.seconds for run in runs)[len(runs) // 2]


def _fixed_strategies(run: RecordedRun) -> set[tuple[str, str]]:
    plays = (record for record in run.records if record["event"] == "play")
    return {(play["task"], play["result"]["strategy"]) for play in plays if play["result"]["strategy"] != run.strategy}


def _print_paths(run: RecordedRun) -> None:
    paths = run.statistics.get("module_runs") or {}
    for name, reasons in paths.items():
        for reason, count in reasons.items():
            print(f"  module runs, {name}: {count}" + (f" ({reason})" if reason != name else ""))


def _differences(core: list[RecordedRun], ours: list[RecordedRun], tolerances: Sequence[Tolerance]) -> list[str]:
    found: list[str] = []
    first = core[0]
    for run in (*core[1:], *ours):
        if run.returncode != first.returncode:
            found.append(
                f"exit status: {first.returncode} under {first.strategy}, {run.returncode} under {run.strategy}"
            )
        found += map(str, compare(first.records, run.records, tolerances))
    return list(dict.fromkeys(found))


def _print_differences(differences: list[str], events: int, shown: int | None) -> None:
    if not differences:
        print(f"results: identical ({events} events of each run compared field by field)")
        return
    print(f"results: {len(differences)} differences")
    for text in differences[:shown]:
        print(f"  {text}")
    if shown is not None and len(differences) > shown:
        print(f"  ... and {len(differences) - shown} more; --show-all shows them")
