# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Podman containers, over `podman exec` as containers.podman's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class PodmanTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"podman", "containers.podman.podman"})


TRANSPORT = PodmanTransport()
