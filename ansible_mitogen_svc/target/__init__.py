# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What is shipped to hosts: the agent, the zygote and its children; Python >= 3.8, standard library only."""

from __future__ import annotations
