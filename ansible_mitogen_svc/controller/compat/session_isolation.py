# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Whether core's worker processes have a session of their own, without the terminal.

Asked by `controller/connection.py` in a worker thread. ansible/executor/process/worker.py, `_detach`: always in 2.19.14
and 2.20.10; by WORKER_SESSION_ISOLATION, on by default, in 2.21.5 and 2.22.0rc1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError


def workers_are_isolated(variables: Mapping[str, Any]) -> bool:
    """For a task with these variables."""
    try:
        return bool(constants.config.get_config_value("WORKER_SESSION_ISOLATION", variables=dict(variables)))
    except AnsibleError:
        return True  # no such setting
