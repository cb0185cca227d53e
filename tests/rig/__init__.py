# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Throw-away hosts for tests: container images and hosts, a loopback sshd, a delaying TCP proxy.

Nothing here is imported by the product. Fixtures in ``tests/integration/conftest.py`` own every object made here
and close it; ``bench/`` and the demo may use `LoopbackSshd` and `DelayProxy` too.
"""
from __future__ import annotations
