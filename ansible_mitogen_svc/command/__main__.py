# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""``python -m ansible_mitogen_svc.command``: the command where no script was installed, as by ansible-galaxy."""

from __future__ import annotations

import sys

from ansible_mitogen_svc.command.main import main

sys.exit(main())
