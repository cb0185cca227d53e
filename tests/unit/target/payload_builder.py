# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Has ansible-core build AnsiballZ texts; run as a script by the interpreter whose core is wanted.

stdin: JSON list of {"module": name or path, "args": {...}}; stdout: JSON list of base64 texts.
"""
from __future__ import annotations

import base64
import inspect
import json
import os
import sys


def build_all(requests: list[dict[str, object]]) -> list[str]:
    from ansible.executor import module_common
    from ansible.module_utils.common.parameters import PASS_VARS
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader, module_loader
    from ansible.release import __version__
    from ansible.template import Templar

    init_plugin_loader()
    templar = Templar(loader=DataLoader())
    internal = {
        'check_mode': False, 'no_log': False, 'debug': False, 'diff': False, 'verbosity': 0, 'version': __version__,
        'syslog_facility': 'LOG_USER', 'selinux_special_fs': ['nfs'], 'keep_remote_files': False, 'socket': None,
        'shell_executable': '/bin/sh', 'tmpdir': None, 'remote_tmp': '/tmp', 'ignore_unknown_opts': False,
        'target_log_info': None, 'tracebacks_for': [],
    }
    if 'inject_invocation' in PASS_VARS:
        internal['inject_invocation'] = True
    extra = {}
    if 'shell_plugin' in inspect.signature(module_common.modify_module).parameters:
        extra['shell_plugin'] = None
    texts = []
    for request in requests:
        name = str(request['module'])
        path = name if name.startswith('/') else module_loader.find_plugin(name)
        name = os.path.basename(name).rpartition('.py')[0] if name.startswith('/') else name
        arguments = {f'_ansible_{key}': value for key, value in internal.items()}
        arguments.update(request['args'], _ansible_module_name=name)  # type: ignore[call-overload]
        built = module_common.modify_module(
            module_name=name, module_path=path, module_args=arguments, templar=templar,
            task_vars={'ansible_python_interpreter': '/usr/bin/python3'}, module_compression='ZIP_DEFLATED', **extra)
        data = built.b_module_data if hasattr(built, 'b_module_data') else built[0]
        texts.append(base64.b64encode(data).decode())
    return texts


if __name__ == '__main__':
    json.dump(build_all(json.load(sys.stdin)), sys.stdout)
