# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""LXC domains of libvirt, over `virsh lxc-enter-namespace` as community.libvirt's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class LibvirtLxcTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"libvirt_lxc", "community.libvirt.libvirt_lxc"})


TRANSPORT = LibvirtLxcTransport()
