# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Gives programs the `LC_CTYPE` of the login, where Python has put in its own. Shipped to hosts, used by starting.py in
the agent and by execution.py in a job's process.

A Python that starts in the C locale sets ``LC_CTYPE`` in its environment to one with UTF-8 (PEP 538). Under core each
module's Python does so, or does not, after it was given the task's variables: with ``LC_ALL``, or a ``LANG`` that names
a locale, it sets nothing. Become commands, and modules that are programs, have no Python in front of them at all. Here
the agent and the zygotes were such a Python once, and whatever they start instead of it must not notice.

What the process was started with is what the kernel keeps of it: forked children have the same. Where there is no
/proc, the variable stays as it is.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

_NAME = 'LC_CTYPE'
#: What Python may set it to, in the order in which it tries them.
_COERCED = ('C.UTF-8', 'C.utf8', 'UTF-8')


def undo(environment: MutableMapping[str, str]) -> None:
    """Undo in a copy of this process's environment, or in it itself, what Python did while it started."""
    if environment.get(_NAME) not in _COERCED:
        return
    try:
        with open('/proc/self/environ', 'rb') as file:
            entries = file.read().split(b'\0')
    except OSError:
        return
    values = [entry.partition(b'=')[2] for entry in entries if entry.startswith(_NAME.encode() + b'=')]
    if values:
        environment[_NAME] = os.fsdecode(values[0])
    else:
        del environment[_NAME]
