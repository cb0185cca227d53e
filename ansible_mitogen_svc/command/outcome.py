# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Exit statuses of `ansible-mitogen-svc`, and the error that ends it. Used by all subcommands."""

from __future__ import annotations

import sys
from typing import Any

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


def core_constants() -> Any:
    """ansible-core's configuration, which most of it reads while it is imported.

    :raises CommandError: there is no ansible-core, or its configuration cannot be read.
    """
    try:
        import ansible.release  # noqa: F401
    except ModuleNotFoundError:
        remedy = f"{sys.executable} -m pip install ansible-core"
        raise CommandError(f"ansible-core is missing for this Python; install it: {remedy}") from None
    try:
        from ansible import constants
    except Exception as error:  # as ansible's own commands do: whatever it is, it is about the configuration
        raise CommandError(f"the configuration of ansible-core cannot be read: {error}") from None
    return constants
