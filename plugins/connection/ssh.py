# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Core's ssh connection plugin under a name of this collection; see `controller/connection.py` for what makes it
fast.
"""

from __future__ import annotations

DOCUMENTATION = """
name: ssh
short_description: connect via the SSH client binary and keep a Python running on the target
version_added: 1.0.0
author: The ansible_mitogen_svc authors (!UNKNOWN)
description:
  - With one of the strategies of this collection, the connection is made once by the very command that
    P(ansible.builtin.ssh#connection) would run, and then kept open; tasks run over it without starting ssh or
    Python again.
  - It does not have to be named. While a strategy of this collection is active, plays
    on C(connection=ssh), or none set, are treated the same.
  - With any other strategy it is P(ansible.builtin.ssh#connection) and nothing more.
  - Has all options of P(ansible.builtin.ssh#connection) of the installed ansible-core.
extends_documentation_fragment:
  - ansible_mitogen.svc.core_ssh
  - connection_pipelining
"""

from ansible.plugins.connection.ssh import Connection as CoreConnection


class Connection(CoreConnection):
    """Core's, found under another name."""
