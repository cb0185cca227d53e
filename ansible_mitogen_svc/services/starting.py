# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Keeps forks of this process apart from programs that another thread is starting.

Used by `services/bootstrap.py` in mitogen's broker thread; takes effect in whatever thread forks.

Theory of operation
1. ``subprocess.Popen`` waits for the end of a pipe whose other end the new program closes by being executed.
2. A task worker forked at that moment inherits the other end, executes nothing, and so keeps it open for as long as it
   runs. The broker stands still until then; when the worker waits for the broker, both wait for ever.
3. So whoever starts a program holds `starting`, and Python itself takes it around every ``os.fork``. What holds it must
   not wait for another lock of the forking thread (`controller/workers/locks.py`): none is taken inside.
"""

from __future__ import annotations

import os
import threading

#: Re-entrant, as Popen forks by itself where it is asked to call something before the program.
starting = threading.RLock()

os.register_at_fork(
    before=starting.acquire,
    after_in_parent=starting.release,
    after_in_child=starting._at_fork_reinit,  # type: ignore[attr-defined]
)
