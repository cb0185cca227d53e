# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""An action that reports what core has made of the task: options of its plugins with their origins, and keywords.

Of passwords it reports checksums: core 2.22 masks themselves in results, so that all would look alike.
"""

from __future__ import annotations

import hashlib
import os

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        for name, value in (self._task.args.get("environment") or {}).items():
            os.environ[name] = str(value)
        plugins = {"connection": self._connection, "shell": self._connection._shell, "become": self._connection.become}
        for name, plugin in plugins.items():
            if plugin is not None:
                result[name] = self._shown(plugin.get_options())
                result[name + "_origins"] = self._shown(plugin._origins)
                result[name + "_name"] = plugin._load_name
        result["task"] = self._shown(self._task.dump_attrs())
        result["play_context"] = self._shown(self._play_context.dump_attrs())
        result["seen_by"] = os.path.basename(os.path.dirname(os.path.dirname(__file__)))
        return result

    @staticmethod
    def _shown(values):
        if isinstance(values.get("loop_control"), dict):
            values["loop_control"].pop("uuid", None)
        shown = {name: repr(value) for name, value in values.items() if name not in ("args", "connection_lockfd")}
        secret = {name: str(value) for name, value in values.items() if "pass" in name and value is not None}
        return shown | {name: hashlib.sha256(value.encode()).hexdigest() for name, value in secret.items()}
