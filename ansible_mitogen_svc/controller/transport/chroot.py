# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Directory trees, over `chroot` as community.general's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class ChrootTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"chroot", "community.general.chroot"})


TRANSPORT = ChrootTransport()
