# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Pods, over `kubectl exec` as kubernetes.core's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class KubectlTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"kubectl", "kubernetes.core.kubectl"})


TRANSPORT = KubectlTransport()
