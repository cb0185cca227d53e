# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Writes every runner result of a run as one JSON line to the file named by ANSIBLE_MITOGEN_SVC_RESULTS.

Loaded by ansible-playbook (main process) in runs that are compared; read by ``comparison.results``.
"""
from __future__ import annotations

DOCUMENTATION = """
name: svc_results
type: notification
short_description: one JSON line per runner result, for comparisons
description: Writes what callbacks are handed, unabridged, to the file that E(ANSIBLE_MITOGEN_SVC_RESULTS) names.
"""

import functools
import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

RUNNER_EVENTS = {
    'v2_runner_on_ok': 'ok',
    'v2_runner_on_failed': 'failed',
    'v2_runner_on_skipped': 'skipped',
    'v2_runner_on_unreachable': 'unreachable',
    'v2_runner_item_on_ok': 'item_ok',
    'v2_runner_item_on_failed': 'item_failed',
    'v2_runner_item_on_skipped': 'item_skipped',
    'v2_runner_retry': 'retry',
    'v2_runner_on_async_poll': 'async_poll',
    'v2_runner_on_async_ok': 'async_ok',
    'v2_runner_on_async_failed': 'async_failed',
    'v2_on_file_diff': 'diff',
}


class CallbackModule(CallbackBase):
    """The callback; one line is ``{"event", "host", "task", "path", "result"}``."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = 'notification'
    CALLBACK_NAME = 'svc_results'
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._file = open(os.environ['ANSIBLE_MITOGEN_SVC_RESULTS'], 'w', encoding='utf-8', errors='backslashreplace')
        for method, event in RUNNER_EVENTS.items():
            setattr(self, method, functools.partial(self._runner, event))

    def _write(self, **record: Any) -> None:
        self._file.write(json.dumps(record, default=repr) + '\n')
        self._file.flush()

    def _runner(self, event: str, result: Any, ignore_errors: bool = False, **unused: Any) -> None:
        record = {'event': event, 'host': result.host.get_name(), 'task': result.task.get_name(),
                  'path': os.path.relpath(result.task.get_path() or '.'), 'result': dict(result.result)}
        if ignore_errors:
            record['ignored'] = True
        self._write(**record)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._write(event='play', host='', task=play.get_name(), path='', result={'strategy': str(play.strategy)})

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._write(event='start', host=host.get_name(), task=task.get_name(), path='', result={})

    def v2_playbook_on_notify(self, handler: Any, host: Any) -> None:
        self._write(event='notify', host=host.get_name(), task=handler.get_name(), path='', result={})

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._write(event='handler', host='', task=task.get_name(), path='', result={})

    def v2_playbook_on_include(self, included_file: Any) -> None:
        for host in included_file._hosts:
            self._write(event='include', host=host.get_name(), task=os.path.basename(included_file._filename), path='',
                        result={})

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._write(event='no_hosts_remaining', host='', task='', path='', result={})

    def v2_playbook_on_stats(self, stats: Any) -> None:
        for host in sorted(stats.processed):
            self._write(event='stats', host=host, task='', path='', result=stats.summarize(host))
        self._file.close()
