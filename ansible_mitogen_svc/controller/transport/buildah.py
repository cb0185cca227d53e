# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Buildah's working containers, over `buildah run` as containers.podman's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class BuildahTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"buildah", "containers.podman.buildah"})


TRANSPORT = BuildahTransport()
