# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Commands that core's `run_command` starts, without the function that it has called in each new process.

Installed by a nursery when it has imported the base set; used by its children, in whatever thread starts a command.

Theory of operation
1. `AnsibleModule.run_command` (ansible/module_utils/basic.py, 2.19 to 2.22) always gives Popen a function to call
   before the command: it sets a umask when the module asked for one, which few do, and does nothing otherwise.
2. With any such function Python copies the process for its sake and runs what is registered for forks, where without
   one the new process borrows the memory until it becomes the command (vfork). A child of a nursery shares all its
   memory and has to copy what it touches: that is 2 ms for each command.
3. So the function is left out when it does nothing. It is known by what it consists of, and by the umask it holds.
4. Python 3.13 might use posix_spawn then, which describes a missing program in other words: it does not.
"""

from __future__ import annotations

import functools
import subprocess
import types

from ansible_mitogen_svc.target import command_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAME = 'AnsibleModule.run_command.<locals>.preexec'


def install() -> None:
    """Have Popen leave out functions that do nothing. Doing it again changes nothing."""
    popen: Any = subprocess.Popen
    start = popen._execute_child
    if hasattr(start, '__wrapped__'):
        return

    @functools.wraps(start)
    def start_command(self: Any, args: Any, executable: Any, preexec_fn: Any, *others: Any) -> Any:
        if _is_cores(preexec_fn) and self.__class__ is popen:
            self.__class__ = command_end.CoreCommand
        if not does_nothing(preexec_fn):
            return start(self, args, executable, preexec_fn, *others)
        module: Any = subprocess
        spawns, module._USE_POSIX_SPAWN = module._USE_POSIX_SPAWN, False
        try:
            return start(self, args, executable, None, *others)
        finally:
            module._USE_POSIX_SPAWN = spawns

    popen._execute_child = start_command


def _is_cores(function: Any) -> bool:
    return isinstance(function, types.FunctionType) and function.__qualname__ == _NAME


def does_nothing(function: Any) -> bool:
    """Whether it is core's, to set a umask, and holds none."""
    if not _is_cores(function):
        return False
    code, cells = function.__code__, function.__closure__
    known = code.co_freevars == ('umask',) and code.co_names == ('os', 'umask') and not code.co_argcount
    return bool(known and cells and not cells[0].cell_contents)
