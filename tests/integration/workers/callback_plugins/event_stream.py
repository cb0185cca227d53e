# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Writes every callback event of a run as one line of JSON, for comparing runs: see streams.py."""

from __future__ import annotations

import json
import os
import threading

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: event_stream
type: notification
short_description: writes callback events as lines of JSON
description: To the file named by the environment variable EVENT_STREAM.
"""

#: Attributes of the task that callbacks may read, and that workers send back.
ATTRIBUTES = (
    "name action args become become_user check_mode connection delegate_to diff environment ignore_errors "
    "ignore_unreachable loop_with no_log notify register remote_user run_once vars when"
).split()

RESULT_EVENTS = (
    "v2_runner_on_ok v2_runner_on_skipped v2_runner_on_unreachable v2_runner_item_on_ok v2_runner_item_on_failed "
    "v2_runner_item_on_skipped v2_runner_retry v2_on_file_diff v2_runner_on_async_poll v2_runner_on_async_ok "
    "v2_runner_on_async_failed"
).split()

#: What a result has beside its values; `_dump_results` leaves it out.
SAID = ("warnings", "deprecations", "exception")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "event_stream"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        path = os.environ.get("EVENT_STREAM")
        self.disabled = not path
        self.file = open(path, "w") if path else None

    def write(self, event, **values):
        values.update(event=event, thread=threading.current_thread().name)
        self.file.write(json.dumps(values, default=repr, sort_keys=True) + "\n")
        self.file.flush()

    def write_result(self, event, result, **more):
        task = result._task
        attributes = {key: value for key, value in task.dump_attrs().items() if key in ATTRIBUTES}
        if task.no_log:
            attributes.pop("args", None)
        self.write(
            event,
            host=result._host.name,
            task=task.get_name(),
            path=task.get_path(),
            result=json.loads(self._dump_results(result._result, indent=None, sort_keys=True)),
            attributes=json.loads(json.dumps(attributes, default=repr, sort_keys=True)),
            said={name: repr(getattr(result, name, None) or result._result.get(name)) for name in SAID},
            **more,
        )

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.write_result("v2_runner_on_failed", result, ignore_errors=bool(ignore_errors))

    def v2_runner_on_start(self, host, task):
        self.write("v2_runner_on_start", host=host.name, task=task.get_name())

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.write("v2_playbook_on_task_start", task=task.get_name(), path=task.get_path())

    def v2_playbook_on_handler_task_start(self, task):
        self.write("v2_playbook_on_handler_task_start", task=task.get_name())

    def v2_playbook_on_notify(self, handler, host):
        self.write("v2_playbook_on_notify", host=host.name, task=handler.get_name())

    def v2_playbook_on_include(self, included_file):
        hosts = sorted(host.name for host in included_file._hosts)
        self.write("v2_playbook_on_include", file=os.path.basename(str(included_file._filename)), hosts=hosts)

    def v2_playbook_on_no_hosts_remaining(self):
        self.write("v2_playbook_on_no_hosts_remaining")

    def v2_playbook_on_play_start(self, play):
        self.write("v2_playbook_on_play_start", play=play.get_name())

    def v2_playbook_on_stats(self, stats):
        summaries = {host: stats.summarize(host) for host in sorted(stats.processed)}
        self.write("v2_playbook_on_stats", hosts=summaries, custom=stats.custom)


def _writer(event):
    def write(self, result):
        self.write_result(event, result)

    return write


for _event in RESULT_EVENTS:
    setattr(CallbackModule, _event, _writer(_event))
