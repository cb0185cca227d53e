# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a child runs that has mitogen and nothing of this package."""

from __future__ import annotations

import sys

import mitogen.core
import mitogen.service


@mitogen.core.takes_router
def call_with_mitogen_only(service, method, router=None, **kwargs):
    """Call the master by mitogen.service.call; the answer, and whether a module of this package was imported."""
    master = mitogen.core.Context(router, 0)
    answer = mitogen.service.call(service, method, master, **kwargs)
    return answer, any(name.startswith("ansible_mitogen_svc") for name in sys.modules)
