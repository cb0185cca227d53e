# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Ctrl-C and SIGTERM end a run quickly, whatever it is doing, and leave nothing behind."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable

import pytest

from tests.integration.workers.conftest import OURS, Lab, where_workers_are_chosen

pytestmark = pytest.mark.timeout(120)
#: Seconds a run may take to end, on a machine that does other things as well.
LIMIT = 20
MARK = "TEST_RUN_MARK"

TASKS = {
    "threads": "    - {name: now, command: sleep 60}\n",
    "forks": "    - {name: now, command: sleep 60, timeout: 50}\n",
    "both": "    - {name: now, command: \"sleep {{ lookup('pipe', 'echo 60') if n is odd else 60 }}\"}\n",
    "inline": "    - {name: now, debug: {msg: '{{ item }}'}, loop: '{{ range(100000) | list }}'}\n",
    "retries": "    - {name: now, command: 'false', register: r, until: r is success, retries: 100, delay: 5}\n",
}
ASYNC = "    - {name: now, command: sleep 60, async: 100, poll: 2}\n"


def marked(mark: str) -> dict[int, str]:
    """Process ids and command lines of the processes whose environment has `mark`."""
    found = {}
    for directory in pathlib.Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if mark.encode() in (directory / "environ").read_bytes():
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(directory.name)] = command
            except OSError:
                continue
    return found


def processes(mark: str) -> list[str]:
    """Command lines of `marked`, in alphabetical order."""
    return sorted(marked(mark).values())


def gone(mark: str) -> bool:
    """Whether no process of the run is left, soon."""
    limit = time.monotonic() + 10
    while processes(mark):
        if time.monotonic() > limit:
            return False
        time.sleep(0.2)
    return True


def started(events: pathlib.Path) -> bool:
    """Whether a task has started, and has had time to get somewhere."""
    if events.exists() and '"v2_runner_on_start"' in events.read_text():
        time.sleep(0.7)
        return True
    return False


def interrupted(
    lab: Lab, strategy: str, tasks: str, number: int, is_time: Callable[[str], bool] | None = None, hosts: int = 4
) -> tuple[int, str, float, str]:
    """(return code, output, seconds it took to end, mark) of a run that got a signal.

    :param is_time: whether to send it now, called with the mark; default: a task has started.
    """
    mark = uuid.uuid4().hex
    play = lab.write("- hosts: many\n  gather_facts: false\n  tasks:\n" + tasks)
    scratch = lab.directory / "temporary"
    env = lab.environment(strategy, ANSIBLE_LOCAL_TEMP=str(scratch), **{MARK: mark})
    process = subprocess.Popen(
        lab.command(play, hosts, hosts),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        limit = time.monotonic() + 60
        while not (is_time(mark) if is_time is not None else started(pathlib.Path(env["EVENT_STREAM"]))):
            assert process.poll() is None and time.monotonic() < limit, "no task has started"
            time.sleep(0.05)
        begun = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT * 2)
        return process.returncode, output, time.monotonic() - begun, mark
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("what", TASKS)
def test_ctrl_c_ends_a_run_as_under_core_and_leaves_no_process(lab: Lab, what: str) -> None:
    code, output, seconds, mark = interrupted(lab, OURS + "linear", TASKS[what], signal.SIGINT)
    assert code == 99 and "User interrupted execution" in output, output[-2000:]
    assert "Traceback" not in output
    assert seconds < LIMIT
    assert gone(mark), processes(mark)
    assert not list((lab.directory / "temporary").glob("*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_programs_of_lookups_that_threads_wait_for_end_with_the_run(lab: Lab, number: int) -> None:
    """They have a session of their own, so the terminal does not end them."""
    task = "    - {name: now, command: 'true', changed_when: \"lookup('pipe', 'sleep 61') == ''\"}\n"
    code, output, seconds, mark = interrupted(
        lab, OURS + "linear", task, number, lambda mark: any("sleep 61" in each for each in processes(mark))
    )
    assert code in (99, -signal.SIGTERM) and "Traceback" not in output, output[-2000:]
    assert seconds < LIMIT
    assert gone(mark), processes(mark)


FORK_INTERRUPTED = """
import os, signal, threading
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_NAME = 2.0, "interrupting"

    def v2_playbook_on_play_start(self, play):
        main, sent = os.getpid(), []
        def in_parent():
            if os.getpid() == main and not sent and threading.current_thread() is threading.main_thread():
                sent.append(1)
                os.kill(main, signal.{name})
        os.register_at_fork({when}=in_parent)
"""
QUEUE_INTERRUPTED = """
import os, signal, threading
from ansible.plugins.callback import CallbackBase

class Lock:
    def __init__(self, lock):
        self.lock, self.sent = lock, []

    def __enter__(self):
        self.lock.acquire()
        if not self.sent and threading.current_thread() is threading.main_thread():
            self.sent.append(1)
            signal.raise_signal(signal.{name})

    def __exit__(self, *exception):
        self.lock.release()

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_NAME = 2.0, "interrupting"

    def v2_playbook_on_play_start(self, play):
        import gc
        from ansible.executor.task_queue_manager import FinalQueue
        for queue in gc.get_objects():
            if isinstance(queue, FinalQueue):
                queue._wlock = Lock(queue._wlock)
"""
END_INTERRUPTED = """
import atexit, os, signal
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_NAME = 2.0, "interrupting"

    def __init__(self):
        super().__init__()
        main = os.getpid()
        atexit.register(lambda: os.getpid() == main and os.kill(main, signal.SIGTERM))
"""


def with_callback(lab: Lab, strategy: str, tasks: str, callback: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """What became of a run with this callback plugin, and its mark."""
    plugins = lab.directory / "interrupting"
    plugins.mkdir(exist_ok=True)
    (plugins / "interrupting.py").write_text(callback)
    play = lab.write("- hosts: many\n  gather_facts: false\n  tasks:\n" + tasks)
    given, mark = lab.environment(strategy), uuid.uuid4().hex
    given |= {"ANSIBLE_CALLBACK_PLUGINS": f"{plugins}:{given['ANSIBLE_CALLBACK_PLUGINS']}", MARK: mark}
    return subprocess.run(
        lab.command(play, 4, 4), env=given, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100,
        start_new_session=True,
    ), mark  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after_in_parent"])
@pytest.mark.parametrize(("name", "ends"), [("SIGINT", 99), ("SIGTERM", -15)])
def test_a_signal_in_the_middle_of_a_fork_is_not_lost(lab: Lab, when: str, name: str, ends: int) -> None:
    """Python swallows what is raised in a function that it calls around a fork."""
    callback = FORK_INTERRUPTED.replace("{name}", name).replace("{when}", when)
    done, mark = with_callback(lab, OURS + "linear", TASKS["forks"].replace("60", "15"), callback)
    assert done.returncode == ends, done.stdout[-1000:] + done.stderr[-2000:]
    assert "Exception ignored" not in done.stderr
    assert gone(mark), processes(mark)


@where_workers_are_chosen
@pytest.mark.parametrize(("name", "ends"), [("SIGINT", 99), ("SIGTERM", -15)])
def test_a_signal_while_an_item_is_told_does_not_leave_cores_queue_locked(lab: Lab, name: str, ends: int) -> None:
    """multiprocessing takes that lock in a method of Python's, where a signal is handled after it was taken.

    A worker process that a signal ends there takes the lock with it, and the run waits: under core as under ours.
    """
    done, mark = with_callback(lab, OURS + "linear", TASKS["inline"], QUEUE_INTERRUPTED.replace("{name}", name))
    assert done.returncode == ends, done.stdout[-1000:] + done.stderr[-2000:]
    assert gone(mark), processes(mark)


def test_sigterm_after_the_run_ends_the_process_as_under_core(lab: Lab) -> None:
    runs = [
        with_callback(lab, strategy, "    - {name: now, ping: }\n", END_INTERRUPTED)
        for strategy in ("linear", OURS + "linear")
    ]
    core, ours = ((done.returncode, done.stderr) for done, _mark in runs)
    assert core == ours and core[0] == -15
    assert gone(runs[1][1]), processes(runs[1][1])


def left_of_a_job(lab: Lab, strategy: str) -> list[str]:
    """Programs that go on after Ctrl-C while an asynchronous job runs; they are ended here."""
    code, output, _seconds, mark = interrupted(
        lab, strategy, ASYNC, signal.SIGINT, lambda mark: "sleep 60 " in processes(mark), hosts=1
    )
    assert code == 99, output[-2000:]
    left, before = processes(mark), None
    while left != before:  # what ends with the run does so soon
        time.sleep(2)
        left, before = processes(mark), left
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    return sorted(re.sub(r"\S*/|\b[j\d][\d.]{3,}", "", each) for each in left)


def test_ctrl_c_leaves_of_an_asynchronous_job_what_core_leaves(lab: Lab) -> None:
    core, ours = left_of_a_job(lab, "linear"), left_of_a_job(lab, OURS + "linear")
    assert any("async_wrapper" in each for each in core)
    assert ours == core


def test_worker_processes_end_when_the_run_is_killed(lab: Lab) -> None:
    """They wait for a target that their parent, which nobody hears any more, was connected to."""
    code, _output, _seconds, mark = interrupted(
        lab, OURS + "linear", TASKS["forks"], signal.SIGKILL, lambda mark: processes(mark).count("sleep 60 ") == 4
    )
    assert code == -signal.SIGKILL
    assert gone(mark), processes(mark)


@pytest.mark.parametrize("what", ["threads", "forks", "inline"])
def test_sigterm_ends_a_run_with_the_status_of_core_and_leaves_no_process(lab: Lab, what: str) -> None:
    code, output, seconds, mark = interrupted(lab, OURS + "linear", TASKS[what], signal.SIGTERM)
    assert code == -signal.SIGTERM, output[-2000:]
    assert "Traceback" not in output
    assert seconds < LIMIT
    assert gone(mark), processes(mark)
    assert not list((lab.directory / "temporary").glob("*"))


def test_ctrl_c_ends_a_run_of_the_free_strategy(lab: Lab) -> None:
    code, output, seconds, mark = interrupted(lab, OURS + "free", TASKS["both"], signal.SIGINT)
    assert code == 99 and seconds < LIMIT
    assert gone(mark), processes(mark)


@pytest.mark.long
@pytest.mark.parametrize("delay", [step / 10 for step in range(1, 40)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_moment_is_a_bad_one_for_a_signal(ssh_lab: Lab, delay: float, number: int) -> None:
    lab, mark = ssh_lab, uuid.uuid4().hex
    env = lab.environment(OURS + "linear", **lab.wants_of_mixed(OURS), **{MARK: mark})
    process = subprocess.Popen(
        lab.command("mixed.yml", 8, 8, scratch=str(lab.directory)),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        time.sleep(delay)
        process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT * 2)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode in (99, -number, 1, 130), output[-2000:]
    assert gone(mark), processes(mark)
