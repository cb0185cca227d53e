# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a strategy plugin does where ansible-galaxy alone has installed it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["mitogen"] = None
from ansible.errors import AnsibleError
from ansible_mitogen_svc.controller.loading import Accelerated
try:
    type("StrategyModule", (Accelerated, object), {})(None)
except AnsibleError as error:
    print(error)
"""


def test_without_mitogen_the_plugin_can_be_imported_and_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"{sys.executable} -m pip install mitogen")
