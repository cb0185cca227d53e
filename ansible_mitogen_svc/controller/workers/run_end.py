# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Ends what outlives a play, when the run ends: sessions, threads, temporary files. Main thread.

Theory of operation

1. Strategy objects live for one play, the Session and the worker threads for the whole run. The last thing core does
   for a run in every CLI, also after errors and Ctrl-C, is ``TaskQueueManager.cleanup``; `attach` puts our end behind
   it on that one object. What no TaskQueueManager cleaned up is left to ``atexit``, which calls us before core's
   handler removes the temporary directory, as that was registered earlier.
2. Ctrl-C needs nothing else: core's handler raises KeyboardInterrupt in the main thread.
3. SIGTERM makes core's process end at once, in the middle of anything. Our handler passes it to worker processes like
   core's, then unwinds the main thread with `Terminated`; when everything is closed the signal is sent again with its
   default action, so that the exit status is what core's would be. A timer does that if the unwinding gets stuck.
   Once the run has ended there is nothing to unwind for, and in Python's own end neither exceptions nor new threads
   work: from there on it ends the process at once, as core's does.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import threading
from collections.abc import Callable
from typing import Any

from ansible import constants

from ansible_mitogen_svc.controller.workers.task_worker import Terminated

#: Seconds a terminated run has for closing down.
TERMINATION_LIMIT = 8.0


class RunEnd:
    """One per process. `close`: closes the Session and the worker threads; may be called more than once."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._pid = os.getpid()
        self._terminated = False
        self._ended = False
        self._attached: Any = None
        atexit.register(self._at_exit)

    def attach(self, tqm: Any) -> None:
        """Have `tqm`'s clean-up end the run, and its process unwind on SIGTERM. Once per TaskQueueManager is enough."""
        if self._attached is tqm:
            return
        self._attached, self._ended = tqm, False
        core_cleanup = tqm.cleanup

        def cleanup() -> None:
            try:
                core_cleanup()
            finally:
                self._end(tqm)

        tqm.cleanup = cleanup
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, _frame: self._on_sigterm(tqm, number))

    def _end(self, tqm: Any) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self._close()
        finally:
            self._ended = True
            if self._terminated:
                tqm.get_loader().cleanup_all_tmp_files()
                shutil.rmtree(constants.DEFAULT_LOCAL_TMP, ignore_errors=True)
                _die_of(signal.SIGTERM)

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            self._close()

    def _on_sigterm(self, tqm: Any, number: int) -> None:
        if os.getpid() != self._pid or self._ended:
            _die_of(number)
        signal.signal(number, signal.SIG_DFL)
        self._terminated = True
        tqm.terminate()
        for worker in tqm.get_workers():
            if worker is not None and worker.pid and worker.is_alive():
                _send(worker.pid, number)
        timer = threading.Timer(TERMINATION_LIMIT, _die_of, (number,))
        timer.daemon = True
        timer.start()
        raise Terminated(128 + number)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _die_of(number: int) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
