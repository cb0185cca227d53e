# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What the rig raises; the fixtures turn `RigUnavailable` into a skip that prints its text."""
from __future__ import annotations


class RigUnavailable(RuntimeError):
    """The machine cannot give what a fixture needs; the text says what is missing and how to get it."""
