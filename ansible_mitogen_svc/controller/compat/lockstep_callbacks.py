# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What callbacks have noted of a play's strategy before that strategy could say which of core's it stands for.

Core tells callbacks of a play first and makes its strategy then. ``ansible.posix.json`` and ``jsonl`` look at the name
in that moment: a task has one entry for all hosts under the names they list, and one for each host under any other.
Main thread, before the first task of each play.
"""

from __future__ import annotations

import sys
from typing import Any

#: Of the callback's module: the names it knows as those of strategies that take hosts through a task together.
NAMES = "LOCKSTEP_CALLBACKS"
#: Of the callback: whether the play's strategy is one of them.
NOTED = "_is_lockstep"


def note_strategy(tqm: Any, strategy: str) -> None:
    """Correct what those callbacks of `tqm` noted that look at the name when a play begins: it is core's `strategy`."""
    for callback in getattr(tqm, "_callback_plugins", ()):
        # A class of somebody's own may be derived from one of theirs.
        modules = (sys.modules.get(each.__module__) for each in type(callback).__mro__)
        names = next((module.__dict__[NAMES] for module in modules if module and NAMES in module.__dict__), None)
        if isinstance(names, frozenset | set | tuple | list) and hasattr(callback, NOTED):
            setattr(callback, NOTED, strategy in names)
