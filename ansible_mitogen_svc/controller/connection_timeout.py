# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How long a host may take to answer, as the variables and settings of its connection say it.

Core's plugins ask their own option, which has been templated. For those without such an option there is the play
context; what a connection has of it are variables as they were written (TaskExecutor._execute_internal, 2.19 to 2.22).
"""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.errors import AnsibleError


def timeout_of(connection: Any, templar: Any = None) -> float:
    """Seconds; 0 where none are to be counted.

    :param connection: any plugin's.
    :param templar: of the task; None where nothing has been said of the host but by its own plugin.
    """
    try:
        return float(connection.get_option("timeout"))
    except (KeyError, TypeError, ValueError):
        pass
    said = connection._play_context.timeout
    try:
        return float(said if templar is None else templar.template(said))
    except (AnsibleError, TypeError, ValueError):
        return float(constants.DEFAULT_TIMEOUT)
