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
4. What we import uses private names of core while it is imported. Where an ansible-core lacks one of them, the plugins
   are core's own strategies with one warning, as under a core that `compat/probe.py` finds too different.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from ansible.errors import AnsibleError

from ansible_mitogen_svc.controller.compat import probe


class WithoutMitogen:
    """In the mixin's place where mitogen is missing. :raises AnsibleError: always, when a play makes one."""

    def __init__(self, *_arguments: Any) -> None:
        raise AnsibleError(
            "The strategies of ansible_mitogen.svc need the Python package mitogen beside ansible-core: "
            f"{sys.executable} -m pip install mitogen"
        )


class CoreAlone:
    """In the mixin's place where ours cannot be imported under this core: `problem` is said, and all else is core's."""

    problem = ""

    def __init__(self, *arguments: Any) -> None:
        probe.warn_once(self.problem)
        super().__init__(*arguments)


def _stand_in(error: Exception) -> type:
    """What takes the mixin's place after `error`. :raises Exception: the error itself, which is for us to see to."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "mitogen":
        return WithoutMitogen
    if probe.is_known() and not probe.is_about_core(error):
        raise error
    CoreAlone.problem = probe.not_understood(error)
    return CoreAlone


_collects = gc.isenabled()
gc.disable()
try:
    from ansible_mitogen_svc.controller.strategy import Accelerated
except Exception as error:
    Accelerated = _stand_in(error)  # type: ignore[assignment, misc]
finally:
    gc.freeze()
    if _collects:
        gc.enable()

__all__ = ["Accelerated", "CoreAlone"]
