# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Results that nobody reads any more: what is raised holds no view of a buffer, which Python would complain about."""

from __future__ import annotations

import gc
import signal
import sys
from types import SimpleNamespace

import pytest
from ansible.executor.task_queue_manager import FinalQueue

from ansible_mitogen_svc.controller.compat.worker_process import let_go_of_what_is_not_sent
from ansible_mitogen_svc.controller.workers.layer import WorkerLayer


class Kept:
    """Keeps an exception, and itself."""

    def __init__(self, error):
        self.error, self.myself = error, self


def keep_error_of(put):
    try:
        put({"result": 1})
    except OSError as error:
        return Kept(error)
    raise AssertionError("it was sent")


@pytest.fixture
def unheard(monkeypatch):
    """A queue of core's whose reader is gone, and what Python complains about while it is used."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    queue = FinalQueue()
    queue._reader.close()
    yield queue, complaints
    signal.signal(signal.SIGPIPE, before)


def test_an_exception_of_a_worker_process_that_is_not_heard_keeps_no_buffer(unheard):
    queue, complaints = unheard
    let_go_of_what_is_not_sent(queue)
    kept = keep_error_of(queue.put)
    frame, held = kept.error.__traceback__, []
    while frame is not None:
        held += frame.tb_frame.f_locals.values()
        frame = frame.tb_next
    assert not [value for value in held if isinstance(value, memoryview)]
    del kept, frame, held
    gc.collect()
    assert complaints == []


def test_a_worker_thread_that_ends_after_the_run_has_closed_its_queue_does_so_quietly(unheard):
    queue, complaints = unheard
    queue.close()

    layer = WorkerLayer.__new__(WorkerLayer)
    layer._strategy = SimpleNamespace(_final_q=queue)
    layer._parts = SimpleNamespace(adapter=SimpleNamespace(wire_result=lambda host, uuid: (host, uuid)))
    layer._ring()
    gc.collect()
    assert complaints == []
