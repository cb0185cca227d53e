# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""``ansible-mitogen-svc clean``: removes the module cache on the hosts of an inventory.

Runs in the command's process; the hosts are reached by an ansible-playbook under core's own strategy, so that nothing
of ours runs there while its files go. What is removed, and what is checked before, is in library/svc_clean_cache.py.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ansible_mitogen_svc.command.outcome import BAD, FINE, CommandError, core_constants, end_of
from ansible_mitogen_svc.comparison.recording import CORE_STRATEGY, run_recorded

PLAYBOOK = Path(__file__).resolve().with_name("playbook.yml")


def add_to(commands: Any) -> None:
    """Define the subcommand's part of the command line."""
    parser = commands.add_parser(
        "clean",
        help="remove the module cache on the hosts of an inventory",
        description=(
            "Removes ~/.cache/ansible_mitogen_svc of the user that Ansible logs in as, or becomes with --become, and "
            "nothing else. All options that are not listed here go to ansible-playbook: --limit, --user, --check, ..."
        ),
        epilog="Example: ansible-mitogen-svc clean -i hosts.yml --limit web --become",
    )
    parser.add_argument("-i", "--inventory", action="append", required=True, metavar="INVENTORY", help="as in Ansible")
    parser.set_defaults(run=run, passes_on=True)


def run(options: argparse.Namespace, passed_on: list[str]) -> int:
    """The subcommand; returns the exit status. :raises CommandError: no host was tried."""
    core_constants()
    inventories = [word for inventory in options.inventory for word in ("-i", inventory)]
    try:
        # The results are what this command tells; there is no secret in them.
        environment = {**os.environ, "ANSIBLE_NO_LOG": "false"}
        finished = run_recorded([str(PLAYBOOK), *inventories, *passed_on], CORE_STRATEGY, environment)
    except FileNotFoundError:
        raise CommandError("ansible-playbook was not found; install ansible-core beside this command.") from None
    answers = [record for record in finished.records if record["event"] in ("ok", "failed", "unreachable")]
    if not answers:
        raise CommandError(f"no host was tried (exit status {finished.returncode}):\n{end_of(finished.output)}")
    for record in answers:
        print(f"{record['host']}: {_describe(record)}")
    return FINE if all(record["event"] == "ok" for record in answers) else BAD


def _describe(record: dict[str, Any]) -> str:
    result = record["result"]
    if record["event"] != "ok":
        return f"{record['event'].upper()}: {result.get('msg', 'no message')}"
    if not result["changed"]:
        return f"nothing at {result['path']}"
    done = "would remove" if result["checked"] else "removed"
    return f"{done} {result['path']} ({result['files']} files, {result['bytes'] / 1e6:.1f} MB)"
