# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""``ansible-mitogen-svc doctor``: is this controller fit, and what would be accelerated?

Runs in the command's process and connects to nothing. What it checks of the controller is here; what it says about
hosts and tasks comes from prospects.py, which asks the code that decides during a run.
"""

from __future__ import annotations

import argparse
import importlib
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ansible_mitogen_svc.command.outcome import BAD, FINE, CommandError, core_constants
from ansible_mitogen_svc.services.connection_limit import FILES_AT_REST, FILES_PER_FORK, FILES_PER_HOST

#: Oldest versions that work: pyproject.toml.
OLDEST_PYTHON = (3, 11)
OLDEST_CORE = (2, 19)
OLDEST_MITOGEN = (0, 3, 54)


@dataclass(frozen=True)
class Finding:
    """One line of the answer. `level`: ok, note, warning or failed."""

    level: str
    text: str


def add_to(commands: Any) -> None:
    """Define the subcommand's part of the command line."""
    parser = commands.add_parser(
        "doctor",
        help="check this controller, and tell what would be accelerated and what not",
        description=(
            "Checks Python, ansible-core, mitogen, ssh, limits and the configuration in effect. With an inventory it "
            "tells how each host would be reached; with a playbook, where each task would run, and why. Connects to no "
            "host."
        ),
        epilog="Example: ansible-mitogen-svc doctor -i hosts.yml site.yml",
    )
    parser.add_argument("-i", "--inventory", action="append", default=[], metavar="INVENTORY", help="as in Ansible")
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="hosts of the inventory to look at (default: all)")
    parser.add_argument("-e", "--extra-vars", action="append", default=[], metavar="VARS", help="as in Ansible")
    parser.add_argument("playbook", nargs="?", metavar="PLAYBOOK", help="a playbook whose tasks to look at")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, _rest: list[str]) -> int:
    """The subcommand; returns the exit status. :raises CommandError: inventory or playbook cannot be read."""
    versions = list(examine_versions())
    if any(finding.level == "failed" for finding in versions):
        # What is left to ask needs all of them.
        _print("Controller", versions)
        return BAD
    try:
        core_constants()
    except CommandError as error:
        _print("Controller", [*versions, Finding("failed", str(error))])
        return BAD
    from ansible_mitogen_svc.controller.loading import Accelerated, CoreAlone

    if issubclass(Accelerated, CoreAlone):
        # Nothing that the rest asks can be imported under this core.
        _print("Controller", [*versions, Finding("failed", CoreAlone.problem)])
        return BAD
    from ansible_mitogen_svc.command.prospects import Prospects

    prospects = Prospects(options.inventory, options.limit, options.extra_vars)
    findings = [*versions, *examine_controller(len(prospects.hosts))]
    _print("Controller", findings)
    # Without -i the configuration's inventory is used, where there is one.
    if prospects.hosts:
        _print(f"Hosts ({len(prospects.hosts)})", list(prospects.examine_hosts()))
    if options.playbook:
        tasks = list(prospects.examine_tasks(options.playbook))
        _print(f"Tasks of {options.playbook}", tasks)
        findings += tasks
    return BAD if any(finding.level == "failed" for finding in findings) else FINE


def _print(title: str, findings: list[Finding]) -> None:
    print(title)
    for finding in findings:
        print(f"  {finding.level:8}{finding.text}")


def examine_versions() -> Iterator[Finding]:
    """Python and the packages, which ansible-galaxy does not install with the collection."""
    yield _at_least("Python", ".".join(map(str, sys.version_info[:3])), OLDEST_PYTHON)
    yield _package("ansible-core", "ansible.release", OLDEST_CORE)
    yield _package("mitogen", "mitogen", OLDEST_MITOGEN)


def _package(name: str, module: str, oldest: tuple[int, ...]) -> Finding:
    try:
        version = importlib.import_module(module).__version__
    except ModuleNotFoundError:
        remedy = f"{sys.executable} -m pip install {name}"
        return Finding("failed", f"{name} is missing for this Python; install it: {remedy}")
    return _at_least(name, version if isinstance(version, str) else ".".join(map(str, version)), oldest)


def examine_controller(hosts: int) -> Iterator[Finding]:
    """What else is found here, with `hosts` hosts to be reached at a time."""
    from ansible import constants
    from ansible.release import __version__ as core

    yield _compatibility(core)
    yield _ssh()
    yield _open_files(hosts, int(constants.DEFAULT_FORKS))
    yield Finding("ok", f"configuration file: {constants.CONFIG_FILE or 'none, defaults and environment only'}")
    yield _strategy(str(constants.DEFAULT_STRATEGY))


def _at_least(name: str, version: str, oldest: tuple[int, ...]) -> Finding:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[: len(oldest)])
    if numbers < oldest:
        return Finding("failed", f"{name} {version} is older than {'.'.join(map(str, oldest))}; install a newer one")
    return Finding("ok", f"{name} {version}")


def _compatibility(core: str) -> Finding:
    from ansible_mitogen_svc.controller.compat.probe import compatibility

    found = compatibility()
    if found.adapter is None:
        return Finding("failed", str(found.problem))
    return Finding("ok", f"ansible-core {core} has all that is used of it ({type(found.adapter).__name__})")


def _ssh() -> Finding:
    program = shutil.which("ssh")
    if program is None:
        return Finding("warning", "no ssh on PATH: hosts over ssh cannot be reached; install the OpenSSH client")
    try:
        version = subprocess.run(
            [program, "-V"], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("warning", f"the ssh on PATH does not tell its version; install the OpenSSH client: {error}")
    return Finding("ok", f"{version.stderr.strip() or version.stdout.strip()} ({program})")


def _open_files(hosts: int, forks: int) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_AT_REST + hosts * FILES_PER_HOST + forks * FILES_PER_FORK
    text = f"open files: {_limit(soft)} allowed, about {needed} needed (hosts: {hosts}, forks: {forks})"
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = (
            f"ulimit -n {needed}" if hard == resource.RLIM_INFINITY or needed <= hard else "nofile in limits.conf(5)"
        )
        return Finding("warning", f"{text}; with fewer, connections are closed and made again: raise it ({raised})")
    return Finding("ok", text)


def _limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else str(value)


def _strategy(name: str) -> Finding:
    from ansible_mitogen_svc.command.prospects import strategy_class

    if strategy_class() is None:
        return Finding("failed", "the collection ansible_mitogen.svc is not installed where ansible-core looks for it")
    if name.startswith("ansible_mitogen.svc."):
        if strategy_class(name) is None:
            return Finding("failed", f"strategy: {name} is none of linear, free, host_pinned and debug")
        return Finding("ok", f"strategy: {name}")
    advice = "set strategy = ansible_mitogen.svc.linear in [defaults], or strategy: in plays"
    return Finding("note", f"strategy: {name}, which is not ours; {advice}")
