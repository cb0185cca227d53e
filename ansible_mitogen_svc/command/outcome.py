# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Exit statuses of `ansible-mitogen-svc`, and the error that ends it. Used by all subcommands."""

from __future__ import annotations

FINE = 0
BAD = 1
CANNOT = 3


class CommandError(Exception):
    """The work could not be done; the message says what is wrong and what to do."""
