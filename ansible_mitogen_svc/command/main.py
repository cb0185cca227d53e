# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
# PYTHON_ARGCOMPLETE_OK
"""Reads the command line of `ansible-mitogen-svc` and calls the subcommand. One process, one thread.

Exit statuses are the same for all: 0 fine, 1 the answer is a bad one (a check failed, results differ, a host could not
be cleaned), 2 the command line is wrong, 3 the work could not be done. Ctrl-C gives 130, as a shell has it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ansible_mitogen_svc.command import cleaning, comparing, doctor
from ansible_mitogen_svc.command.outcome import CANNOT, FINE, CommandError

INTERRUPTED = 130
EPILOG = (
    "Exit status: 0 fine; 1 a check failed, results differ, or a host could not be cleaned; 2 wrong command line; "
    "3 the work could not be done."
)


def parser() -> argparse.ArgumentParser:
    """The command line, with its help."""
    top = argparse.ArgumentParser(
        prog="ansible-mitogen-svc", description="Companion of the collection ansible_mitogen.svc.", epilog=EPILOG
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for subcommand in (doctor, comparing, cleaning):
        subcommand.add_to(commands)
    return top


def _version() -> str:
    try:
        return metadata.version("ansible-mitogen-svc")
    except metadata.PackageNotFoundError:
        # Installed by ansible-galaxy: the package is a directory of the collection.
        manifest = Path(__file__).resolve().parents[2] / "MANIFEST.json"
    try:
        return str(json.loads(manifest.read_text())["collection_info"]["version"])
    except FileNotFoundError:
        return "unknown: a checkout that is not installed"


def _letters_apart(words: Sequence[str]) -> list[str]:
    """`-C -D` in place of `-CD`, where only the first letter is ours: argparse before Python 3.13 refuses that."""
    end = words.index("--") if "--" in words else len(words)
    found: list[str] = []
    for word in words[:end]:
        found += ["-C", f"-{word[2:]}"] if re.fullmatch("-C[A-Za-z]+", word) else [word]
    return [*found, *words[end:]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    top = parser()
    try:
        import argcomplete
    except ImportError:
        pass  # As with ansible's own commands: completion for those who have installed it.
    else:
        argcomplete.autocomplete(top)
    # What a subcommand passes on to ansible-playbook is not ours to know.
    options, rest = top.parse_known_args(_letters_apart(sys.argv[1:] if arguments is None else arguments))
    if rest and not getattr(options, "passes_on", False):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(options.run(options, rest))
    except CommandError as error:
        print(f"ansible-mitogen-svc: {error}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
