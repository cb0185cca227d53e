# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""LXD instances, over `lxc exec` as community.general's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class LxdTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"lxd", "community.general.lxd"})


TRANSPORT = LxdTransport()
