# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Variables of hosts as they were when a task was queued, by core's own VariableManager."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHANGES = {
    "facts": "manager.set_host_facts('h', {'x': NEW})",
    "set_fact": "manager.set_nonpersistent_facts('h', {'x': NEW})",
    "include_vars": "manager.set_host_variable('h', 'x', NEW)",
}
# In a process of its own: the methods of core's class are replaced for good.
PROGRAM = """
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_mitogen_svc.controller.compat import host_state

host_state.install(VariableManager)
loader = DataLoader()
inventory = InventoryManager(loader, ['h,other,'])
manager = VariableManager(loader, inventory)
HostVars(inventory, manager, loader)


def seen(by):
    facts = by._hostvars['h']
    return [facts.get('x', 'none'), facts.get('ansible_facts', {}).get('x', 'none'), facts.get('y', 'none')]


NEW = 1
{change}
manager.set_nonpersistent_facts('other', {'y': 1})
before = seen(manager)
then = host_state.as_now(manager)
assert host_state.as_now(manager) is then
NEW = 2
{change}
manager.set_nonpersistent_facts('h', {'y': 3})
assert host_state.as_now(manager) is not then
assert seen(then) == before, (seen(then), before)
assert 1 in before and 2 not in before and 2 in seen(manager) and 3 in seen(manager)
manager.clear_facts('h')
assert seen(then) == before, (seen(then), before)
print('as it was')
"""


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_later_is_not_seen(change: str) -> None:
    program = PROGRAM.replace("{change}", change)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "as it was\n", done.stderr
