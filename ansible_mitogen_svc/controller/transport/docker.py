# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Docker containers, over `docker exec` as community.docker's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class DockerTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"docker", "community.docker.docker"})


TRANSPORT = DockerTransport()
