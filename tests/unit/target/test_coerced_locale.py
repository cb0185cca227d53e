# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What is started by a Python that has set `LC_CTYPE` for itself has the one that this Python was started with."""
from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
START = """
import os, sys
from ansible_mitogen_svc.target import starting
start = getattr(starting, sys.argv[1])
started = start(['sh', '-c', 'read line; echo "$LC_CTYPE|$ADDED"'], eval(sys.argv[2]), None)
started.input.write(b'go\\n')
os.set_blocking(started.output.fileno(), True)
output = ''
while '|' not in output:
    output += os.read(started.output.fileno(), 100).decode()
started.process.wait()
print(os.environ.get('LC_CTYPE'), output.split()[-1])
"""
pytestmark = pytest.mark.skipif(not os.path.exists('/proc/self/environ'), reason='no /proc here')


def started_with(variables: Mapping[str, str], start: str = 'start_on_pipes', added: object = None) -> list[str]:
    """`LC_CTYPE` of a Python with these variables, and what a shell that it starts shows."""
    environment = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(CHECKOUT), **variables}
    done = subprocess.run([sys.executable, '-c', START, start, repr(added)], env=environment, capture_output=True,
                          text=True, check=True, timeout=30)
    return done.stdout.split()


@pytest.mark.parametrize('start', ['start_on_pipes', 'start_on_terminal'])
def test_the_variable_that_python_has_set_is_not_handed_on(start: str) -> None:
    coerced, shown = started_with({}, start)
    if coerced == 'None':
        pytest.skip('this Python has found no locale with UTF-8')
    assert shown == '|'
    assert started_with({}, start, {'ADDED': 'yes'}) == [coerced, '|yes']


def test_one_that_the_login_has_set_is_handed_on() -> None:
    assert started_with({'LC_CTYPE': 'C.UTF-8'}) == ['C.UTF-8', 'C.UTF-8|']
    assert started_with({'LC_CTYPE': 'nowhere', 'LC_ALL': 'C.UTF-8'}) == ['nowhere', 'nowhere|']


def test_one_that_python_has_replaced_is_handed_on_as_it_was() -> None:
    coerced, shown = started_with({'LC_CTYPE': 'POSIX'})
    if coerced == 'POSIX':
        pytest.skip('this Python has found no locale with UTF-8')
    assert shown == 'POSIX|'


def test_one_that_is_asked_for_is_set() -> None:
    assert started_with({}, added={'LC_CTYPE': 'C.UTF-8'})[1] == 'C.UTF-8|'
