# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Core's local connection plugin under a name of this collection; see `controller/connection.py` for what makes it
fast.
"""

from __future__ import annotations

DOCUMENTATION = """
name: local
short_description: run on the controller, in a Python that keeps running
version_added: 1.0.0
author: The ansible_mitogen_svc authors (!UNKNOWN)
description:
  - With one of the strategies of this collection, tasks on the controller run in children of a Python that is
    started once.
  - It does not have to be named. While a strategy of this collection is active, C(connection=local) is treated the
    same.
  - With any other strategy it is P(ansible.builtin.local#connection) and nothing more.
  - Has all options of P(ansible.builtin.local#connection) of the installed ansible-core.
extends_documentation_fragment:
  - ansible_mitogen.svc.core_local
  - connection_pipelining
"""

from ansible.plugins.connection.local import Connection as CoreConnection


class Connection(CoreConnection):
    """Core's, found under another name."""
