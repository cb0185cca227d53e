# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Writes to standard output in a thread of its own all the time, and in each process that is forked from this one.

A process that is forked while the thread is inside the stream inherits the stream's lock for ever, and hangs as soon as
it prints. The thread is waited for at the end: one that still writes then can keep Python from ending, under core too.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: writes_beside
type: aggregate
short_description: writes beside the display
description: As displays, debuggers and measuring tools do that bring a thread.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "writes_beside"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        os.register_at_fork(after_in_child=lambda: print("[forked]"))
        atexit.register(self._end)
        self._thread.start()

    def _write(self) -> None:
        while not self._over.is_set():
            sys.stdout.write("\a" * 1024)
            sys.stdout.flush()

    def _end(self) -> None:
        self._over.set()
        self._thread.join()
