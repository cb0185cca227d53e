# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Imports the strategy mixin for ``plugins/strategy/*``, in the main thread, while the garbage collector rests.

Theory of operation
1. When core loads a strategy plugin it has made most of the objects that it will ever have: modules, settings,
   inventory, plays. Each full collection looks at all of them, and importing as much again as we do sets off several,
   for a handful of objects that could go.
2. So nothing is collected meanwhile, and what there is by then is not looked at again: collections of the run are for
   what the run makes. Forked workers gain twice, because a collection writes to what it looks at.
3. Without mitogen, which ansible-galaxy does not install, the plugins can be imported and documented all the same; the
   play that wants one says what to install.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from ansible.errors import AnsibleError


class WithoutMitogen:
    """In the mixin's place where mitogen is missing. :raises AnsibleError: always, when a play makes one."""

    def __init__(self, *_arguments: Any) -> None:
        raise AnsibleError(
            "The strategies of ansible_mitogen.svc need the Python package mitogen beside ansible-core: "
            f"{sys.executable} -m pip install mitogen"
        )


_collects = gc.isenabled()
gc.disable()
try:
    from ansible_mitogen_svc.controller.strategy import Accelerated
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "mitogen":
        raise
    Accelerated = WithoutMitogen  # type: ignore[assignment, misc]
finally:
    gc.freeze()
    if _collects:
        gc.enable()

__all__ = ["Accelerated"]
