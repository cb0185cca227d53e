# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The container's host, over `nsenter` as community.docker's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class NsenterTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"community.docker.nsenter"})


TRANSPORT = NsenterTransport()
