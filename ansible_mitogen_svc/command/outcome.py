# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Exit statuses of `ansible-mitogen-svc`, and the error that ends it. Used by all subcommands."""

from __future__ import annotations

FINE = 0
BAD = 1
CANNOT = 3


OUTPUT_SHOWN = 4000
"""Characters of another program's output that a message has."""


def end_of(output: str) -> str:
    """The end of what a program printed, after the errors that stand before it."""
    errors = [line for line in output[:-OUTPUT_SHOWN].splitlines() if "error" in line.lower()]
    return "\n".join([*errors[:10], output[-OUTPUT_SHOWN:]])


class CommandError(Exception):
    """The work could not be done; the message says what is wrong and what to do."""
