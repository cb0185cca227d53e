# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a worker process and the process it was forked from know of each other's temporary files."""

from __future__ import annotations

import inspect
import os
import types

import pytest
from ansible.executor.process.worker import WorkerProcess

from ansible_mitogen_svc.controller.compat.worker_process import worker_process_class


def made_for(loader, after_fork_in_child):
    """A worker process over `loader`, not started."""
    lifecycle = types.SimpleNamespace(after_fork_in_child=after_fork_in_child)
    arguments = dict.fromkeys(list(inspect.signature(WorkerProcess.__init__).parameters)[1:])
    return worker_process_class(object, lifecycle)(**{**arguments, "loader": loader})


def test_temporary_files_of_threads_stay_known_while_a_worker_process_is_made() -> None:
    """Else a file that a thread decrypts before the fork stays on the disk."""
    known = {"/of/a/thread"}
    loader = types.SimpleNamespace(_tempfiles=known)
    process = made_for(loader, lambda: None)
    assert loader._tempfiles is known and known == {"/of/a/thread"}
    assert process._loader is loader


def test_a_worker_process_removes_no_files_but_its_own() -> None:
    loader = types.SimpleNamespace(_tempfiles={"/of/a/thread"})
    reads, writes = os.pipe()

    def tell() -> None:
        os.write(writes, repr(loader._tempfiles).encode())
        os._exit(0)

    process = made_for(loader, tell)
    process.start()
    os.close(writes)
    with os.fdopen(reads) as told:
        assert told.read() == "set()"
    process.join()
    assert loader._tempfiles == {"/of/a/thread"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_worker_process_that_is_interrupted_as_it_begins_ends_without_a_word(error, capfd) -> None:
    """Such as by a signal that came just before the fork: the process that forked it ends the run."""

    def interrupted() -> None:
        raise error

    process = made_for(types.SimpleNamespace(_tempfiles=set()), interrupted)
    process.start()
    process.join(20)
    assert process.exitcode == 1
    assert capfd.readouterr() == ("", "")
