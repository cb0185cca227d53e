# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Solaris zones, over `zlogin` as community.general's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class ZoneTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"zone", "community.general.zone"})


TRANSPORT = ZoneTransport()
