# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Incus instances, over `incus exec` as community.general's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class IncusTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"community.general.incus"})


TRANSPORT = IncusTransport()
