# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a child does before its job comes must not be noticed by the job."""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = """
import gc, locale, os, signal, sys, threading
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
    at_first = locale.setlocale(locale.LC_ALL)
    rehearse = rehearsal.prepare()
    assert locale.setlocale(locale.LC_ALL) == at_first
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


def said(mode: str, **environment: str) -> str:
    run = subprocess.run([sys.executable, '-c', SCRIPT, str(ROOT), mode], capture_output=True, text=True, timeout=60,
                         env={**os.environ, **environment})
    assert run.returncode == 0 and not run.stderr, run.stderr
    return run.stdout


@pytest.mark.parametrize('language', ['C', 'C.UTF-8', 'xx_YY.UTF-8'])
def test_a_rehearsal_changes_nothing_that_a_job_could_see(language: str) -> None:
    assert said('plain', LC_ALL=language) == 'unnoticed\n'


def test_the_files_of_a_locale_are_not_read_again_after_a_rehearsal(tmp_path: pathlib.Path) -> None:
    if shutil.which('strace') is None:
        pytest.skip('strace is not installed')
    script = ('import locale, os, sys; sys.path.insert(0, sys.argv[1]); '
              'from ansible_mitogen_svc.target import rehearsal; rehearsal.prepare(); os.write(2, b"rehearsed"); '
              'locale.setlocale(locale.LC_ALL, "")')
    trace = tmp_path / 'trace'
    subprocess.run(['strace', '-o', str(trace), '-e', 'trace=openat,write', sys.executable, '-c', script, str(ROOT)],
                   check=True, timeout=60, env={**os.environ, 'LC_ALL': 'C.UTF-8', 'LANG': 'C.UTF-8'})
    before, said_so, after = trace.read_text().partition('rehearsed')
    assert said_so and 'locale' in before and '/locale' not in after


def test_children_do_not_rehearse_with_module_utils_that_fail_or_say_something() -> None:
    assert said('broken') == said('talkative') == 'None\n'
