# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Options of core's ssh connection plugin, whatever the installed core has: taken from its documentation, not
repeated.
"""

from __future__ import annotations

import re

import yaml
from ansible.plugins.connection import ssh

# Less the versions: they are ansible-core's, and would be read as this collection's.
_CORE = yaml.safe_load(re.sub(r"(?m)^ +version_added:.*\n", "", ssh.DOCUMENTATION))


class ModuleDocFragment:
    """Read by ansible-doc and by core's configuration."""

    DOCUMENTATION: str = yaml.safe_dump({name: _CORE[name] for name in ("options", "notes") if name in _CORE})
