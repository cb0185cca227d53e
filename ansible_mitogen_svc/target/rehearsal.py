# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What nearly every module does with core's module_utils, done once before a job comes.

Called by a nursery at the end of its preloading, and by each of its children that waits for a job; single-threaded.

Theory of operation
1. A forked child shares the nursery's memory until it writes, and Python writes whenever it looks at an object: the
   first look at each page costs a copy. Half of a small module's time went into that, while the job's answer waited.
2. So a waiting child calls the functions which a module is about to call: validation of arguments, decoding and
   encoding, removal of secrets, all with data of our own. These are functions without effects: they return something
   that is dropped. No module object is made, no process, no file, and nothing is said.
3. In the nursery the same calls load what is loaded on first use. That is part of its signature (loader.py), like all
   that it imports; children load nothing by them. Where the nursery's call fails, its children do not rehearse.
"""

from __future__ import annotations

import json
import locale
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPEC = {
    'name': {'type': 'str', 'aliases': ['title']}, 'state': {'type': 'str', 'choices': ['present', 'absent']},
    'path': {'type': 'path'}, 'force': {'type': 'bool', 'default': False}, 'size': {'type': 'int'},
    'items': {'type': 'list', 'elements': 'str'}, 'mode': {'type': 'raw'}, 'options': {'type': 'dict'},
}
_GIVEN = {'title': 'a', 'state': 'present', 'force': 'yes', 'size': '1', 'items': 'a,b', 'options': {'a': 'b'}}
_JOB = '{"ANSIBLE_MODULE_ARGS": {"name": "a", "items": [1, {"b": null}], "_ansible_check_mode": false}}'
_RESULT = {'changed': False, 'rc': 0, 'stdout': 'a\nb', 'stdout_lines': ['a', 'b'], 'invocation': {'args': _GIVEN}}


def prepare() -> Callable[[], None] | None:
    """Rehearse for the first time, in a nursery; return the rehearsal for its children, None where it failed."""
    before = _said()
    _read_locale()
    try:
        rehearse = _rehearsal()
        rehearse()
    except Exception:
        rehearse = None
    if _said() != before:
        # A module_utils file that is not core's, or not of a core that we know: nothing is called in vain there.
        _take_back(before)
        return None
    return rehearse


def _read_locale() -> None:
    if 'LOCPATH' in os.environ:
        return  # nobody watches that directory
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, '')
    except locale.Error:
        pass  # each module finds out for itself, and takes another one
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _rehearsal() -> Callable[[], None]:
    from ansible.module_utils.common import arg_spec, parameters
    from ansible.module_utils.common import json as profiles

    decoder = profiles.get_module_decoder('legacy', profiles.Direction.CONTROLLER_TO_MODULE)
    encoder = profiles.get_module_encoder('legacy', profiles.Direction.MODULE_TO_CONTROLLER)
    # From 2.22 on secrets are masked by ansible.module_utils.secrets, and this one says that it is deprecated.
    masks_itself = 'ansible.module_utils.secrets' in sys.modules

    def rehearse() -> None:
        validator = arg_spec.ArgumentSpecValidator(
            _SPEC, mutually_exclusive=[('name', 'path')], required_together=[('name', 'state')],
            required_one_of=[('name', 'path')], required_if=[('state', 'absent', ('path',))],
            required_by={'size': ('name',)})
        validator.validate(_GIVEN)
        json.loads(_JOB, cls=decoder)
        json.dumps(_RESULT if masks_itself else parameters.remove_values(_RESULT, {'a secret'}), cls=encoder)

    return rehearse


def _said() -> dict[str, Any]:
    """What module_utils keeps to be told with a module's result."""
    kept = sys.modules.get('ansible.module_utils.common.warnings')
    found = vars(kept).items() if kept is not None else ()
    return {name: value.copy() for name, value in found if name.startswith('_global') and hasattr(value, 'copy')}


def _take_back(said: dict[str, Any]) -> None:
    for name, value in said.items():
        current: Any = getattr(sys.modules['ansible.module_utils.common.warnings'], name)
        current.clear()
        current.update(value)
