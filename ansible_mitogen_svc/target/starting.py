# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Starts the commands that become zygotes: become commands and other interpreters. Shipped to hosts, used by
agent.py.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys

from ansible_mitogen_svc.target import coerced_locale


class Started:
    """A process and our ends of its descriptors, all non-blocking; `errors` is None when they come with the output.

    `terminal` is a descriptor of the terminal's master side, or None; it must stay open for as long as the process
    shall live, because closing the last one hangs it up.
    """

    def __init__(self, process, input_file, output_file, error_file, terminal=None):
        self.process = process
        self.input = input_file
        self.output = output_file
        self.errors = error_file
        self.terminal = terminal
        for file in (input_file, output_file, error_file):
            if file is not None:
                os.set_blocking(file.fileno(), False)


def start_on_pipes(argv, environment, cwd):
    """Run `argv` in a session of its own, without a terminal. :raises OSError: it cannot be run."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(environment),
        cwd=cwd,
        start_new_session=True,
        bufsize=0,
    )
    return Started(process, process.stdin, process.stdout, process.stderr)


def start_on_terminal(argv, environment, cwd):
    """Run `argv` with a controlling terminal, which is its standard input and both of its outputs.

    A `su` reads the password there. A sudo in front of it or behind does not hand on what is typed when one of them is
    a pipe. Frames come through unchanged once the zygote's first stage has made its own end raw.
    :raises OSError: it cannot be run.
    """
    master, slave = pty.openpty()
    path = os.ttyname(slave)

    def take_terminal():
        os.setsid()
        os.close(os.open(path, os.O_RDWR))

    try:
        process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=_environment(environment),
            cwd=cwd,
            preexec_fn=take_terminal,
            bufsize=0,
        )
    except OSError:
        os.close(master)
        raise
    finally:
        os.close(slave)
    writer = os.fdopen(os.dup(master), "wb", 0)
    return Started(process, writer, os.fdopen(os.dup(master), "rb", 0), None, master)


def _environment(additions):
    environment = dict(os.environ)
    coerced_locale.undo(environment)
    environment.update(additions or {})
    return environment


def same_interpreter(name, shell=None):
    """The path of an interpreter when it is the one that runs here, else None.

    The directory counts as well as the file: a virtual environment's python is a link to another one. `shell` is what
    would start it; one that cannot be run starts nothing.
    """
    path = name and shutil.which(name)
    if shell and not shutil.which(shell):
        return None
    if not path or not sys.executable:
        return None
    path = os.path.abspath(path)
    ours = os.path.abspath(sys.executable)
    same_file = os.path.realpath(path) == os.path.realpath(ours)
    same_place = os.path.realpath(os.path.dirname(path)) == os.path.realpath(os.path.dirname(ours))
    return path if same_file and same_place else None
