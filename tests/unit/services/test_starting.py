# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A process that forks while one of its threads starts programs: the thread does not wait for what was forked."""

from __future__ import annotations

import os
import subprocess
import sys

#: Forks children that do nothing for 2 seconds while a thread starts programs; prints the longest start in seconds.
PROGRAM = """
import os, subprocess, sys, threading, time
from ansible_mitogen_svc.services.starting import starting

longest, over = 0.0, False

def start_programs():
    global longest
    while not over:
        begun = time.monotonic()
        with starting:
            process = subprocess.Popen(["true"])
        longest = max(longest, time.monotonic() - begun)
        process.wait()

thread = threading.Thread(target=start_programs)
thread.start()
children = []
for _number in range(150):
    pid = os.fork()
    if pid == 0:
        time.sleep(2)
        os._exit(0)
    children.append(pid)
    time.sleep(0.005)
over = True
thread.join()
print(longest)
"""


def test_a_start_does_not_wait_for_processes_that_were_forked_meanwhile() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5
