# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""FreeBSD jails made by iocage, over `jexec` as community.general's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class IocageTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"iocage", "community.general.iocage"})


TRANSPORT = IocageTransport()
