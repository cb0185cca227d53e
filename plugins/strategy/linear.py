# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Core's linear strategy with our workers and connections: see ansible_mitogen_svc/controller/strategy.py."""

from __future__ import annotations

DOCUMENTATION = """
name: linear
short_description: Runs tasks in lockstep over persistent connections
description:
  - Does what P(ansible.builtin.linear#strategy) does; each task runs on all hosts before the next one starts.
  - Differs in how a task reaches its host. Connections of type P(ansible.builtin.ssh#connection) and
    P(ansible.builtin.local#connection) stay open for the whole run, modules are kept on the host, and tasks do not need
    a process of their own on the controller.
  - Playbooks need no change. What this strategy cannot do better it leaves to ansible-core.
author: The ansible_mitogen_svc authors (!UNKNOWN)
version_added: 1.0.0
extends_documentation_fragment:
  - ansible_mitogen.svc.strategy_options
notes:
  - ansible-core prints a deprecation warning for every strategy plugin that is not its own, also for this one.
seealso:
  - plugin: ansible.builtin.linear
    plugin_type: strategy
"""

import os
import sys

from ansible.plugins.strategy.linear import StrategyModule as CoreStrategy

try:
    import ansible_mitogen_svc.controller  # noqa: F401
except ImportError:
    # Installed by ansible-galaxy: the package is a directory of the collection.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from ansible_mitogen_svc.controller.loading import Accelerated


class StrategyModule(Accelerated, CoreStrategy):  # type: ignore[misc]
    """See DOCUMENTATION."""
