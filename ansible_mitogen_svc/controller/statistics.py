# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The counters of this process, under the name the controller's modules use."""

from __future__ import annotations

from ansible_mitogen_svc.statistics import Counters, counters

__all__ = ["Counters", "counters"]
