# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a child does before its job comes must not be noticed by the job."""
from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = """
import gc, os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
import ansible.module_utils.basic
import ansible.module_utils._internal._ansiballz._loader
import ansible.module_utils.common.warnings as warnings
from ansible.module_utils.common import arg_spec
from ansible_mitogen_svc.target import rehearsal

def state():
    umask = os.umask(0o22)
    os.umask(umask)
    return (sorted(sys.modules), dict(os.environ), os.getcwd(), umask, sorted(os.listdir('/proc/self/fd')), sys.argv,
            sys.path, [signal.getsignal(number) for number in (2, 13, 15, 17)], threading.active_count(),
            repr(vars(warnings)['_global_warnings']), repr(vars(warnings)['_global_deprecations']),
            {name: repr(value) for name, value in vars(ansible.module_utils.basic).items()
             if isinstance(value, (dict, list, str, bytes, int, tuple, type(None)))})

if sys.argv[2] == 'plain':
    rehearse = rehearsal.prepare()
    before = state()
    for _ in range(3):
        rehearse()
    assert state() == before
    print('unnoticed')
elif sys.argv[2] == 'broken':
    arg_spec.ArgumentSpecValidator.validate = None
    print(rehearsal.prepare())
else:
    core = arg_spec.ArgumentSpecValidator.validate
    def validate(self, *arguments):
        warnings.warn('somebody looks')
        return core(self, *arguments)
    arg_spec.ArgumentSpecValidator.validate = validate
    print(rehearsal.prepare())
    assert not warnings._global_warnings
"""


def said(mode: str) -> str:
    run = subprocess.run([sys.executable, '-c', SCRIPT, str(ROOT), mode], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and not run.stderr, run.stderr
    return run.stdout


def test_a_rehearsal_changes_nothing_that_a_job_could_see() -> None:
    assert said('plain') == 'unnoticed\n'


def test_children_do_not_rehearse_with_module_utils_that_fail_or_say_something() -> None:
    assert said('broken') == said('talkative') == 'None\n'
