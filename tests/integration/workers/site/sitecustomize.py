# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Lets a test choose how often Python changes threads in the ansible-playbook it starts."""

from __future__ import annotations

import os
import sys

if "TEST_SWITCH_INTERVAL" in os.environ:
    sys.setswitchinterval(float(os.environ["TEST_SWITCH_INTERVAL"]))
