# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes a timeline of the run: see ansible_mitogen_svc/timeline/. Runs in ansible-playbook's main process."""

from __future__ import annotations

DOCUMENTATION = """
name: timeline
type: aggregate
short_description: writes an HTML timeline of hosts and tasks, coloured by where the time went
version_added: 1.0.0
author: The ansible_mitogen_svc authors (!UNKNOWN)
description:
  - Writes one HTML file that needs no network to be opened. It has a bar for each task on each host, coloured by where
    its time went (waiting for a worker, connecting, transferring files, the module on the host, the controller), and
    tables of the slowest tasks and hosts, of workers and fallbacks, of the module cache and of connections.
  - Can write the same as a trace for C(chrome://tracing) and U(https://ui.perfetto.dev).
  - Under a strategy that is not of this collection a bar has one colour, as nothing is known of its parts.
requirements:
  - enable in configuration - C(callbacks_enabled = ansible_mitogen.svc.timeline)
options:
  report_path:
    description:
      - The HTML file to write; an existing one is replaced. With an empty value none is written.
      - It is written at the end of the run, also where Ctrl-C has ended it.
    type: str
    default: ansible-timeline.html
    env:
      - name: ANSIBLE_MITOGEN_SVC_TIMELINE
    ini:
      - section: ansible_mitogen_svc
        key: timeline_path
  trace_path:
    description: The trace file (JSON) to write; none by default.
    type: str
    default: ""
    env:
      - name: ANSIBLE_MITOGEN_SVC_TRACE
    ini:
      - section: ansible_mitogen_svc
        key: trace_path
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from ansible.plugins.callback import CallbackBase

try:
    import ansible_mitogen_svc.timeline  # noqa: F401
except ImportError:
    # Installed by ansible-galaxy: the package is a directory of the collection.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from ansible_mitogen_svc.spans import recorder
from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.timeline import files
from ansible_mitogen_svc.timeline.record import TimelineRecord, as_plain


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ansible_mitogen.svc.timeline"
    CALLBACK_NEEDS_ENABLED = True
    #: What the end of the process calls. ansible-console makes a callback for each line, of which the last one writes.
    _at_exit: ClassVar[Callable[[], None] | None] = None

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._record = TimelineRecord()
        self._process = os.getpid()
        recorder.enabled = True
        # Where Ctrl-C ends a run, core tells no callback of its end.
        if CallbackModule._at_exit is not None:
            atexit.unregister(CallbackModule._at_exit)
        CallbackModule._at_exit = atexit.register(self._finish_if_begun)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """The run begins."""
        self._record.playbook = os.path.basename(playbook._file_name)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A task starts on a host."""
        self._record.start(host.get_name(), task._uuid, task.get_name(), task.action)

    def _ended(self, result: Any, status: str) -> None:
        self._record.end(result.host.get_name(), result.task._uuid, status)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task has succeeded."""
        self._ended(result, "changed" if result.result.get("changed") else "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task has failed."""
        self._ended(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A task was skipped."""
        self._ended(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host could not be reached."""
        self._ended(result, "unreachable")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run is over: write the files."""
        self._finish()

    def _finish_if_begun(self) -> None:
        """Not where nothing ran: an earlier report is worth more than an empty one."""
        if self._record.has_bars():
            self._finish()

    def _finish(self) -> None:
        """Write the files, once, and not in a worker process that ends."""
        atexit.unregister(self._finish_if_begun)
        if os.getpid() != self._process:
            return
        bars = self._record.finish(recorder)
        plain = as_plain(bars, self._record.playbook, self._record.began, counters.report())
        self._write("timeline", self.get_option("report_path"), lambda path: files.write_report(path, plain))
        self._write("trace", self.get_option("trace_path"), lambda path: files.write_trace(path, bars))

    def _write(self, name: str, option: str | None, write: Callable[[str], None]) -> None:
        # Options of type path cannot be empty, which switches the report off.
        path = os.path.expanduser(os.path.expandvars(option or ""))
        if not path:
            return
        try:
            write(path)
        except OSError as error:
            self._display.warning(f"ansible_mitogen.svc.timeline: could not write {error.filename}: {error.strerror}")
        else:
            self._display.display(f"{name}: {path}")
