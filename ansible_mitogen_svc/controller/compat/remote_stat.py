# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What core's file actions do not look at in a file's state on the target, and so need not ask for.

The mixin in front of those actions (action.py puts it there); lives in a task worker. Core's `_execute_remote_stat`
leaves the stat module's `get_mime` and `get_attributes` on, for which the module starts two programs (file, lsattr) per
file that exists: most of what an unchanged `copy` or `template` costs on a host. The classes named here read `exists`,
`isdir`, `checksum`, `islnk` and `lnk_source` of it, and hand nothing of it on; where they are others than those that
were looked at (ansible-core 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1), everything is asked for, as core does.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ansible_mitogen_svc.controller.compat.caches import digest

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase as _Core
else:
    # The real base is the accelerated action.
    _Core = object

#: Digests of the action plugins' classes, by the plugin. Core loads one file under several names.
KNOWN = {
    "assemble": {"8e767413132d8d90"},
    "copy": {"d77313874e429252", "745348c7cd13cd3d", "edee159b960050d0"},
    "fetch": {"5d0b4cbdef603e0b", "93547b70f82dcfa8", "0bd5d50e0471b24e"},
    "unarchive": {"33320abf5dc6066a", "518a9b57372ce6d1"},
}
_UNREAD = {"get_mime": False, "get_attributes": False}


@functools.cache
def reads_little_of_stat(action: type[Any]) -> bool:
    """Whether an action plugin's class is one of core's that are known here."""
    known = KNOWN.get(action.__module__.rpartition(".")[2])
    try:
        return known is not None and digest(action) in known
    except (OSError, TypeError):
        return False


class LeanStatAction(_Core):
    """Mixin; see the module. `_svc` names are ours, all others core's."""

    _svc_remote_stat = False

    def _execute_remote_stat(self, *args: Any, **keywords: Any) -> Any:
        self._svc_remote_stat = not getattr(self._connection._shell, "_IS_WINDOWS", False)
        try:
            return super()._execute_remote_stat(*args, **keywords)
        finally:
            self._svc_remote_stat = False

    def _execute_module(self, module_name: Any = None, module_args: Any = None, *args: Any, **keywords: Any) -> Any:
        if self._svc_remote_stat and module_name == "ansible.legacy.stat" and module_args:
            module_args = {**module_args, **_UNREAD}
        return super()._execute_module(module_name, module_args, *args, **keywords)
