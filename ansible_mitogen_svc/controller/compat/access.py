# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Core's stack of audits of template values, which is one mutable object per context (2.19 to 2.22).

Called at the start of threads beside a task. Imported on use: on a core without it the probe (probe.py) has decided
by then that there are no such threads.
"""

from __future__ import annotations


def own_access_context() -> None:
    """Give the current context an empty stack: a copied context would share that of the thread it was copied from."""
    from ansible._internal._templating._access import AnsibleAccessContext

    AnsibleAccessContext._contextvar.set(AnsibleAccessContext())
