# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The Session with real agents: sharing, loss, forks, and what is left behind."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import mitogen.master
import mitogen.parent
import pytest
from ansible.errors import AnsibleFileNotFound
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_mitogen_svc.controller.connection import accelerated
from ansible_mitogen_svc.controller.payload import Payload
from ansible_mitogen_svc.controller.session import Session, SessionLifecycle, session_lifecycle
from ansible_mitogen_svc.controller.target import LOGIN, Target
from ansible_mitogen_svc.services import exit_watch
from ansible_mitogen_svc.services.answers import Answer, ZygoteLost
from ansible_mitogen_svc.services.bootstrap import StartFailure
from ansible_mitogen_svc.services.connection import ConnectionService
from ansible_mitogen_svc.services.link import TargetLost
from tests.unit.controller.conftest import local_plan

Connect = Callable[[str], Target]


def execute(target: Target, command: str) -> Answer:
    header = {"op": "execute", "argv": ["/bin/sh", "-c", command], "environment": {}, "steps": []}
    return target.call(target.login_number, header, [b""], timeout=30)


def run(target: Target, payload: Payload) -> dict[str, object]:
    zygote = target.zygote(LOGIN)
    assert zygote is not None
    target.ensure_code(zygote, payload.manifest)
    header = {
        "op": "run",
        "manifest": payload.manifest.id,
        "module": payload.module,
        "arguments": payload.arguments,
        "executable": zygote.hello.executable,
        "environment": {},
        "steps": [],
    }
    answer = target.call(zygote.number, header, [payload.parameters], timeout=60)
    result: dict[str, object] = json.loads(answer.blobs[0])
    return result


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == pid:
                found += family(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def agent_pid(session: Session, target: Target) -> int:
    return session.connections._processes[target.context_id].pid


def test_a_long_name_of_the_directory_for_temporary_files_is_no_hindrance(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("n" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    session = Session(pool_size=1)
    try:
        assert stat.S_ISSOCK(os.stat(session.path).st_mode)
        assert stat.S_IMODE(os.stat(session.directory).st_mode) == 0o700
        assert not list(long.iterdir())
    finally:
        session.close()
    assert not os.path.exists(session.directory)


def test_a_module_runs_in_a_zygote_with_code_that_was_pushed_or_fetched(connect: Connect, ping: Payload) -> None:
    assert run(connect("one"), ping)["ping"] == "pong"


def test_twenty_tasks_that_connect_at_once_share_one_connection(session: Session) -> None:
    targets: list[Target] = []

    def connect() -> None:
        targets.append(session.connect(local_plan("shared"), "host"))

    threads = [threading.Thread(target=connect) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({target.context_id for target in targets}) == 1
    assert len(targets) == 20


def test_different_configurations_have_connections_of_their_own(connect: Connect) -> None:
    assert connect("one").context_id != connect("two").context_id


def test_jobs_of_one_target_run_at_the_same_time(connect: Connect) -> None:
    target = connect("one")
    execute(target, "true")
    started = time.monotonic()
    threads = [threading.Thread(target=execute, args=(target, "sleep 1")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - started < 5


def test_a_killed_agent_loses_the_call_and_the_next_connect_works(session: Session, connect: Connect) -> None:
    target = connect("one")
    threading.Timer(0.5, os.kill, (agent_pid(session, target), signal.SIGKILL)).start()
    with pytest.raises(TargetLost):
        execute(target, "sleep 20")
    assert "killed by signal 9" in session.explain_end(target)
    assert eventually(lambda: not target.alive)
    assert execute(connect("one"), "exit 7").header["rc"] == 7


def test_a_killed_zygote_is_named_and_the_agent_lives_on(connect: Connect) -> None:
    target = connect("one")
    with pytest.raises(ZygoteLost, match="killed by signal 9"):
        execute(target, "kill -9 $PPID; sleep 20")
    with pytest.raises(ZygoteLost, match="killed by signal 9"):
        execute(target, "true")


def test_a_target_is_asked_for_a_sign_of_life_after_a_long_silence_only(session: Session, connect: Connect) -> None:
    target = connect("one")
    pid = agent_pid(session, target)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert target.still_answers(0.3, session.is_moving), "it was heard of a moment ago"
        target.answered -= 100
        assert not target.still_answers(0.3, session.is_moving)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert target.still_answers(30, session.is_moving) and execute(target, "exit 3").header["rc"] == 3
    assert time.monotonic() - target.answered < 10


def local_connection() -> Any:
    """As a task has one."""
    context = PlayContext()
    context.timeout = 1
    made = connection_loader.get("local", context)
    made.set_options()
    connection = accelerated(made, "host")
    connection.svc_variables = {"ansible_python_interpreter": sys.executable}
    connection.svc_templar = types.SimpleNamespace(template=lambda value: value)
    return connection


@pytest.fixture
def here(tmp_path: pathlib.Path) -> Iterator[Any]:
    """A local connection of a task whose playbook is in `tmp_path`."""
    connection = local_connection()
    connection.cwd = str(tmp_path)
    yield connection
    session_lifecycle.close()
    session_lifecycle.begin()


@pytest.mark.parametrize("whose", ["ours", "core's"])
def test_relative_paths_of_a_local_connection_are_from_the_playbook_on(
    whose: str, here: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIG_PLACE", str(tmp_path / "place"))
    (tmp_path / "place").mkdir()
    (tmp_path / "source").write_text("content")
    put = here.put_file if whose == "ours" else functools.partial(here.svc_plugin_class.put_file, here)
    put("source", "place/relative")
    put("$RIG_PLACE/relative", "$RIG_PLACE/variable")
    assert (tmp_path / "place/relative").read_text() == (tmp_path / "place/variable").read_text() == "content"


def test_a_missing_source_is_reported_as_core_does(here: Any, tmp_path: pathlib.Path) -> None:
    said = []
    for put in (here.put_file, functools.partial(here.svc_plugin_class.put_file, here)):
        with pytest.raises(AnsibleFileNotFound) as caught:
            put("missing", str(tmp_path / "there"))
        said.append(str(caught.value))
    assert said[0] == said[1] and str(tmp_path / "missing") in said[0]


def test_a_connection_that_died_without_a_word_is_made_anew_for_the_next_task() -> None:
    try:
        silent = local_connection().svc_target()
        agent = session_lifecycle.current().connections._processes[silent.context_id]
        agent.send_signal(signal.SIGSTOP)
        try:
            silent.answered -= 100
            target = local_connection().svc_target()
            assert target is not silent and execute(target, "exit 3").header["rc"] == 3
            assert local_connection().svc_target() is target
        finally:
            os.kill(agent.pid, signal.SIGKILL)
    finally:
        session_lifecycle.close()
        session_lifecycle.begin()


def test_a_program_that_fails_before_an_agent_is_up_is_reported_with_its_words(session: Session) -> None:
    plan = local_plan("broken")
    script = b"echo to stdout; echo to stderr >&2; exit 42"
    with pytest.raises(StartFailure) as caught:
        session.connect(type(plan)(key="broken", name="broken", argv=(b"/bin/sh", b"-c", script)), "host")
    failure = caught.value
    assert (failure.returncode, failure.reason) == (42, "exit")
    assert (failure.stdout, failure.stderr) == (b"to stdout\n", b"to stderr\n")


def test_a_program_that_fails_with_bytes_that_are_no_text_is_reported_with_its_words(session: Session) -> None:
    plan = local_plan("rude")
    script = rb"printf 'ni\361o\n'; printf 'Zug\344nge gesperrt\n' >&2; exit 42"
    with pytest.raises(StartFailure) as caught:
        session.connect(type(plan)(key="rude", name="rude", argv=(b"/bin/sh", b"-c", script)), "host")
    assert (caught.value.returncode, caught.value.stdout) == (42, b"ni\xf1o\n")
    assert caught.value.stderr == b"Zug\xe4nge gesperrt\n"


def test_what_a_program_printed_without_an_end_of_line_is_kept_and_costs_no_time(session: Session) -> None:
    def failure(script: bytes) -> StartFailure:
        with pytest.raises(StartFailure) as caught:
            session.connect(dataclasses.replace(local_plan("long"), argv=(b"/bin/sh", b"-c", script)), "host")
        return caught.value

    assert failure(b"printf 'no end'; exit 42").stdout == b"no end"
    began = time.process_time()
    kept = failure(b"head -c 40000000 /dev/zero | tr '\\0' x; echo MITO00; printf end; exit 42").stdout
    assert kept.endswith(b"x" * 1000 + b"MITO00\nend") and len(kept) < 40_000
    # Joining all that came with each piece of it took 5 seconds.
    assert time.process_time() - began < 2


def test_a_connection_that_ends_right_after_its_hello_is_no_connection(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    greet = ConnectionService._greet

    def greet_and_end(self: ConnectionService, context: Any) -> Any:
        header = greet(self, context)
        monkeypatch.undo()
        stream = self.router.stream_by_id(context.context_id)
        self.router.broker.defer_sync(lambda: stream.on_disconnect(self.router.broker))
        return header

    monkeypatch.setattr(ConnectionService, "_greet", greet_and_end)
    with pytest.raises(StartFailure):
        session.connect(local_plan("short"), "host")
    assert not session.connections._contexts and not session.connections._starting
    assert execute(session.connect(local_plan("short"), "host"), "exit 3").header["rc"] == 3


def test_a_failed_connection_is_tried_again_by_the_next_task(session: Session, tmp_path: pathlib.Path) -> None:
    plan = local_plan("flaky")
    script = b"test -e %s || { touch %s; exit 1; }; " % ((os.fsencode(tmp_path / "seen"),) * 2) + plan.argv[2]
    flaky = type(plan)(key="flaky", name="flaky", argv=(b"/bin/sh", b"-c", script))
    with pytest.raises(StartFailure):
        session.connect(flaky, "host")
    assert execute(session.connect(flaky, "host"), "exit 3").header["rc"] == 3


def test_a_host_without_python_is_told_apart_from_a_failed_connection(session: Session) -> None:
    plan = local_plan("bare")
    script = plan.argv[2].replace(sys.executable.encode(), b"/nonexistent/python3")
    with pytest.raises(StartFailure) as caught:
        session.connect(type(plan)(key="bare", name="bare", argv=(b"/bin/sh", b"-c", script)), "host")
    assert caught.value.returncode in (126, 127)


def test_closing_leaves_no_process_no_socket_and_no_file(session: Session, connect: Connect) -> None:
    pids = [pid for key in ("one", "two") for pid in family(agent_pid(session, connect(key)))]
    assert len(pids) >= 4
    execute(connect("one"), "true")
    directory = session.directory
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(session.path).st_mode) == 0o600
    session.close()
    assert not os.path.exists(directory)
    assert eventually(lambda: not any(alive(pid) for pid in pids)), [pid for pid in pids if alive(pid)]


def test_closing_waits_for_what_targets_were_told_without_an_answer(
    session: Session, connect: Connect, tmp_path: pathlib.Path
) -> None:
    target = connect("one")
    files = [tmp_path / f"file{number}" for number in range(50)]
    for path in files:
        path.touch()
        target.cast(target.login_number, {"op": "steps", "steps": [["remove", str(path)]]})
    session.close()
    assert not [path for path in files if path.exists()]


def test_all_who_settle_wait_until_it_is_done_also_beside_another_who_waits(
    connect: Connect, tmp_path: pathlib.Path
) -> None:
    target = connect("one")
    for attempt in range(5):
        full = tmp_path / f"full{attempt}"
        full.mkdir()
        for number in range(3000):
            (full / str(number)).touch()
        target.cast_steps(target.login_number, [["remove", str(full)]])
        left = []

        def settle(full: pathlib.Path = full, left: list[bool] = left) -> None:
            target.settle()
            left.append(full.exists())

        threads = [threading.Thread(target=settle) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert left == [False] * 4


def test_a_forked_worker_uses_the_connection_of_its_parent(ping: Payload, tmp_path: pathlib.Path) -> None:
    lifecycle = SessionLifecycle()
    try:
        parent = lifecycle.current()
        context_id = parent.connect(local_plan("one"), "host").context_id
        moving = parent.files._shares.taken(context_id)
        moving.__enter__()
        lifecycle.before_fork()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                lifecycle.after_fork_in_child()
                target = lifecycle.current().connect(local_plan("one"), "host")
                good = target.context_id == context_id and run(target, ping)["ping"] == "pong"
                session = lifecycle.current()
                refused = session.router._handle_map[mitogen.core.GET_RESOURCE][1]
                good = good and refused.__module__.endswith("closed_router")
                good = good and session.is_moving(target, 60.0) and not session.is_moving(target, 0.0)
                lifecycle.close()
                status = 0 if good else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        moving.__exit__(None, None, None)
        assert not parent.is_moving(parent.connect(local_plan("one"), "host"), 60.0)
        assert execute(parent.connect(local_plan("one"), "host"), "exit 5").header["rc"] == 5
    finally:
        lifecycle.close()


def test_the_end_of_a_run_waits_for_its_programs_and_not_for_the_next_look_at_them(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mitogen.parent.Reaper, "_calc_delay", lambda self, count: 60.0)
    monkeypatch.setattr(session.broker, "shutdown_timeout", 30.0)
    for key in ("one", "two"):
        plan = local_plan(key)
        # As ssh does: it has things to do when its output has ended.
        command = plan.argv[-1].removeprefix(b"exec ") + b"; exec <&- >&- 2>&-; sleep 0.2"
        session.connect(dataclasses.replace(plan, argv=(*plan.argv[:-1], command)), "localhost")
    programs = [process.pid for process in session.connections._processes.values()]
    descriptors = len(os.listdir("/proc/self/fd"))
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 15
    assert len(programs) == 2 and not any(os.path.exists(f"/proc/{pid}") for pid in programs)
    assert len(os.listdir("/proc/self/fd")) < descriptors


def test_a_broker_does_not_wait_for_a_program_only_because_it_is_watched() -> None:
    broker = mitogen.master.Broker(install_watcher=False)
    before = len(os.listdir("/proc/self/fd"))
    with subprocess.Popen(["sleep", "60"]) as program:
        try:
            ended = threading.Event()
            broker.defer_sync(lambda: exit_watch.watch(broker, program.pid, ended.set))
            assert len(os.listdir("/proc/self/fd")) == before + 1
            broker.shutdown()
            broker.join()
            assert not ended.is_set() and program.poll() is None
            assert len(os.listdir("/proc/self/fd")) <= before
        finally:
            program.kill()
