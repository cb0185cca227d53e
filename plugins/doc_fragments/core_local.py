# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Options of core's local connection plugin, whatever the installed core has: taken from its documentation, not
repeated.
"""

from __future__ import annotations

import yaml
from ansible.plugins.connection import local

_CORE = yaml.safe_load(local.DOCUMENTATION)


class ModuleDocFragment:
    """Read by ansible-doc and by core's configuration."""

    DOCUMENTATION = yaml.safe_dump({name: _CORE[name] for name in ("options", "notes") if name in _CORE})
