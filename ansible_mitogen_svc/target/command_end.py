# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The end of a command that core's `run_command` has read to its end, seen at once.

Used by light_commands.py for the commands of `run_command`; the class takes effect in whatever thread runs them.

Theory of operation
1. `AnsibleModule.run_command` (ansible/module_utils/basic.py, 2.19 to 2.22) asks `poll` twice when both pipes are at
   their end: "has it exited?" leaves the loop, then "is it still running?" waits for it.
2. A command that exits between the two is neither: the loop then selects among no pipes at all, for one second. In a
   cold run that is one command of a thousand; in a job, where all of it is warm, it was one of a hundred.
3. So what was said to run when both pipes were at their end is said to run twice more, and core waits for what has
   ended already. Twice, for the first question may have been asked before core had seen the ends; not for ever, for a
   module may ask, too. While a pipe is open (the command is silent, or a daemon has it) core asks once a second, and
   every answer counts.
"""

from __future__ import annotations

import select
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    _Process = subprocess.Popen[bytes]
else:
    _Process = subprocess.Popen


class CoreCommand(_Process):
    """A process that `run_command` has started; it became one after it was made."""

    _held_back = 0
    """How often its end is still held back."""

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs; see the module."""
        status = super().poll()
        if status is None:
            self._held_back = 2 if _at_end(self.stdout) and _at_end(self.stderr) else 0
        elif self._held_back:
            self._held_back -= 1
            return None
        return status


def _at_end(pipe: IO[Any] | None) -> bool:
    """Say whether there is nothing left to be read from a pipe, and never will be."""
    if pipe is None or pipe.closed:
        return False
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLIN)
    return poll.poll(0) == [(pipe.fileno(), select.POLLHUP)]
