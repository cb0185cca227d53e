# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Prints and display messages of workers: captured or queued in their own thread, untouched in others."""

from __future__ import annotations

import sys
import threading

from ansible_mitogen_svc.controller.workers import output


def test_prints_of_a_worker_are_kept_from_the_terminal_and_others_are_not(capsys) -> None:
    output.install_streams()
    try:
        with output.worker_output(lambda entry: None) as captured:
            print("of the worker")
            sys.stderr.buffer.write(b"bytes\n")
            other = threading.Thread(target=print, args=("of another thread",))
            other.start()
            other.join()
        print("after")
    finally:
        output.remove_streams()
    assert captured.texts() == [("stdout", "of the worker\n"), ("stderr", "bytes\n")]
    assert capsys.readouterr().out == "of another thread\nafter\n"


def test_installing_twice_wraps_once() -> None:
    before = sys.stdout
    output.install_streams()
    output.install_streams()
    output.remove_streams()
    assert sys.stdout is before


def test_the_router_is_true_only_in_a_thread_that_runs_a_task() -> None:
    router, left = output.DisplayRouter(), []
    assert not router
    with output.worker_output(left.append):
        assert router
        seen = []
        other = threading.Thread(target=lambda: seen.append(bool(router)))
        other.start()
        other.join()
        router.send_display("display", "text")
    assert not router and seen == [False] and len(left) == 1


def test_a_side_thread_is_part_of_its_worker() -> None:
    router, left, seen = output.DisplayRouter(), [], []
    with output.worker_output(left.append):
        carry_over = output.carried_over()

    def side() -> None:
        carry_over()
        seen.append(bool(router))

    thread = threading.Thread(target=side)
    thread.start()
    thread.join()
    assert seen == [True]
