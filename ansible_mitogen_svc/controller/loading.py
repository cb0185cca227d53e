# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Imports the strategy mixin for ``plugins/strategy/*``, in the main thread, while the garbage collector rests.

Theory of operation
1. When core loads a strategy plugin it has made most of the objects that it will ever have: modules, settings,
   inventory, plays. Each full collection looks at all of them, and importing as much again as we do sets off several,
   for a handful of objects that could go.
2. So nothing is collected meanwhile, and what there is by then is not looked at again: collections of the run are for
   what the run makes. Forked workers gain twice, because a collection writes to what it looks at.
"""

from __future__ import annotations

import gc

_collects = gc.isenabled()
gc.disable()
try:
    from ansible_mitogen_svc.controller.strategy import Accelerated
finally:
    gc.freeze()
    if _collects:
        gc.enable()

__all__ = ["Accelerated"]
