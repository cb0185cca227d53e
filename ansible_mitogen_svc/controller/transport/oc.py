# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Pods of OpenShift, over `oc exec` as community.okd's plugin starts it."""

from __future__ import annotations

from ansible_mitogen_svc.controller.local_command import LocalCommandTransport


class OcTransport(LocalCommandTransport):
    """See the module and `Transport`."""

    names = frozenset({"oc", "community.okd.oc"})


TRANSPORT = OcTransport()
