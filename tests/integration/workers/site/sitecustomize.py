# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a test changes in the ansible-playbook it starts, named by environment variables.

TEST_SWITCH_INTERVAL: seconds after which Python changes threads. TEST_CORE_VERSION: what ansible-core says it is.
TEST_SLOW_OPENER: seconds that pass after something that opens URLs was installed. TEST_CORE_LACKS: take away something
that our adapter for the newest core needs. TEST_CORE_RENAMED: a name that core has under another one, everywhere and
from the start, as a newer core may. TEST_SSH_LACKS: the same for core's ssh connection plugin. TEST_STACKS: the
file to which every process of the run appends the stacks of its threads on SIGUSR2 (see stacks.py).
"""

from __future__ import annotations

import faulthandler
import importlib.machinery
import os
import signal
import sys
import types

if "TEST_STACKS" in os.environ:
    faulthandler.register(signal.SIGUSR2, open(os.environ["TEST_STACKS"], "a"), all_threads=True)

if "TEST_SWITCH_INTERVAL" in os.environ:
    sys.setswitchinterval(float(os.environ["TEST_SWITCH_INTERVAL"]))

if "TEST_SLOW_OPENER" in os.environ:
    import time
    import urllib.request

    _install_opener = urllib.request.install_opener

    def _install_and_wait(opener: urllib.request.OpenerDirector) -> None:
        _install_opener(opener)
        time.sleep(float(os.environ["TEST_SLOW_OPENER"]))

    urllib.request.install_opener = _install_and_wait

if "TEST_CORE_RENAMED" in os.environ:
    # In the text that is compiled, and not in ours: core itself goes on as before.
    _loader = importlib.machinery.SourceFileLoader
    _core_code = _loader.get_code

    def _get_renamed(self: importlib.machinery.SourceFileLoader, fullname: str) -> types.CodeType | None:
        name = os.environ["TEST_CORE_RENAMED"].encode()
        if not fullname.startswith("ansible.") or name not in (text := self.get_data(self.path)):
            return _core_code(self, fullname)
        return self.source_to_code(text.replace(name, name + b"Anew"), self.path)

    _loader.get_code = _get_renamed  # type: ignore[method-assign]

if "TEST_CORE_VERSION" in os.environ:
    import ansible.release

    ansible.release.__version__ = os.environ["TEST_CORE_VERSION"]

if "TEST_CORE_LACKS" in os.environ:
    # A name that our adapter uses and core itself does not.
    from ansible._internal._worker._inventory_rpc import InventoryRPC

    del InventoryRPC.add_host.__wrapped__

if "TEST_SSH_LACKS" in os.environ:
    # Core needs this one only while the module is imported.
    from ansible.plugins.connection import ssh

    del ssh._ssh_retry
