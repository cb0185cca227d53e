# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a process per task gives for free, and threads must be given: each test failed with threads alone."""

from __future__ import annotations

import base64
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import threading

import pytest
from streams import differences

from tests.integration.workers.conftest import OURS, Lab, Run, forced, where_workers_are_chosen

pytestmark = pytest.mark.timeout(300)
LINEAR = OURS + "linear"
HEAD = "- hosts: many\n  gather_facts: false\n  tasks:\n"
SAFE = {"ANSIBLE_MITOGEN_SVC_SAFE_PLUGINS": "ansible.legacy"}
PLUGINS = {
    "ANSIBLE_ACTION_PLUGINS": str(pathlib.Path(__file__).with_name("plays") / "action_plugins"),
    "ANSIBLE_LOOKUP_PLUGINS": str(pathlib.Path(__file__).with_name("plays") / "lookup_plugins"),
}


def with_a_task_after(lab: Lab, hosts: int, misbehaves: str) -> Run:
    """A run of a task that misbehaves, in threads, and of one after it."""
    first = f"    - {{name: first, misbehaves: {{how: {misbehaves}}}}}\n"
    play = lab.write(HEAD + first + "    - {name: after, debug: {msg: here}}\n")
    return lab.run(play, LINEAR, hosts=hosts, forks=hosts, **SAFE, **PLUGINS)


@where_workers_are_chosen
def test_an_action_that_exits_fails_its_own_task_only(lab: Lab) -> None:
    run = with_a_task_after(lab, 3, "\"{{ 'exit' if n == 1 else 'nothing' }}\"")
    assert "SystemExit" in run.results("first", "v2_runner_on_failed")["h01"]["msg"]
    assert set(run.results("after")) == {"h02", "h03"}
    assert forced or "thread" in run.tasks


@where_workers_are_chosen
def test_a_fault_of_the_worker_layer_fails_its_task_only(lab: Lab) -> None:
    run = with_a_task_after(lab, 1, "break the worker")
    assert "a fault of the worker layer" in run.results("first", "v2_runner_on_failed")["h01"]["msg"]
    assert run.returncode == 2 and not run.results("after")


@where_workers_are_chosen
@pytest.mark.parametrize("how", ["interrupt", "interrupt the worker"])
def test_an_interrupt_that_no_person_caused_fails_its_own_task_only(lab: Lab, how: str) -> None:
    run = with_a_task_after(lab, 3, f"\"{{{{ '{how}' if n == 1 else 'nothing' }}}}\"")
    assert "KeyboardInterrupt" in run.results("first", "v2_runner_on_failed")["h01"]["msg"], run.output
    assert set(run.results("after")) == {"h02", "h03"}
    assert "thread" in run.tasks


def test_stray_prints_are_shown_as_a_warning_in_the_words_of_core(lab: Lab) -> None:
    play = lab.write(HEAD + "    - {name: prints, misbehaves: {how: print}}\n")
    core = lab.run(play, "linear", hosts=1, forks=1, **PLUGINS)
    ours = lab.run(play, LINEAR, hosts=1, forks=1, **SAFE, **PLUGINS)
    assert forced or list(ours.tasks) == ["thread"]
    for shown in (core.output, ours.output):
        assert shown.count("errantly sent data directly to stdout instead of using Display:\n    a stray line") == 1
        assert shown.count("errantly sent data directly to stderr") == 1
        assert shown.count("a stray line") == 1


def test_a_result_that_does_not_pickle_fails_its_task_as_under_core(lab: Lab) -> None:
    play = lab.write(HEAD + "    - {name: unpicklable, misbehaves: {how: unpicklable}}\n")
    core = lab.run(play, "linear", hosts=1, forks=1, **PLUGINS)
    ours = lab.run(play, LINEAR, hosts=1, forks=1, **SAFE, **PLUGINS)
    assert forced or list(ours.tasks) == ["thread"]
    # Core loses the name of the task on the way.
    said = [
        [event["result"]["msg"] for event in run.events if event["event"] == "v2_runner_on_failed"]
        for run in (core, ours)
    ]
    assert said[0][0].startswith("Task result omitted due to queue send failure") and said[0] == said[1]


def test_plugins_that_nobody_vouched_for_run_in_processes_of_their_own(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + "    - {name: action, misbehaves: {how: pid}}\n"
        + "    - {name: lookup, debug: {msg: \"{{ lookup('whose_process') }}\"}}\n"
        + "    - {name: hidden, debug: {msg: '{{ hidden }}'}, vars: {hidden: \"{{ lookup('whose_process') }}\"}}\n"
    )
    run = lab.run(play, LINEAR, hosts=2, forks=2, **PLUGINS)
    pids = {result["pid"] for result in run.results("action").values()}
    pids |= {result["msg"] for name in ("lookup", "hidden") for result in run.results(name).values()}
    assert len(pids) == 6
    assert forced or run.tasks == {"fork": {"action:misbehaves": 2, "lookup:whose_process": 4}}


FILTERS = """
import functools
calls = []
def counted(value):
    calls.append(value)
    return len(calls)
@functools.lru_cache
def first_line(path):
    with open(path) as file:
        return file.readline()
class FilterModule:
    def filters(self):
        return {"counted": counted, "first_line": first_line}
"""
PURE = "class FilterModule:\n    def filters(self):\n        return {'doubled': lambda value: 2 * value}\n"


def test_what_a_filter_keeps_is_gone_with_its_task(every_core: Lab) -> None:
    every_core.write(FILTERS, "filter_plugins/keeping.py")
    every_core.write(PURE, "filter_plugins/pure.py")
    play = every_core.write(
        HEAD
        + "    - {name: doubled, debug: {msg: '{{ n | doubled }}'}}\n"
        + "    - {name: counted, debug: {msg: '{{ n | counted }} {{ -n | counted }}'}}\n"
        + "    - {copy: {dest: '{{ scratch }}/{{ n }}', content: before}}\n"
        + "    - {name: before, debug: {msg: \"{{ (scratch ~ '/' ~ n) | first_line }}\"}}\n"
        + "    - {copy: {dest: '{{ scratch }}/{{ n }}', content: after}}\n"
        + "    - {name: after, debug: {msg: \"{{ (scratch ~ '/' ~ n) | first_line }}\"}, when: (n | counted) == 1}\n"
    )
    for run in every_core.both(play, hosts=2, forks=2):
        said = {name: {each["msg"] for each in run.results(name).values()} for name in ("counted", "before", "after")}
        assert said == {"counted": {"1 2"}, "before": {"before"}, "after": {"after"}}, run.output
    assert forced or run.tasks["inline"] == {"controller_only": 2}, run.tasks
    assert forced or set(run.tasks["fork"]) == {"filter:counted", "filter:first_line"}, run.tasks


@where_workers_are_chosen
def test_a_filter_of_a_collection_answers_for_itself_alone(every_core: Lab) -> None:
    """Core reads all files with filters of a collection to find one."""
    plugins = "collections/ansible_collections/lab/tools/plugins/filter"
    every_core.write(FILTERS, f"{plugins}/keeping.py")
    every_core.write(PURE, f"{plugins}/pure.py")
    play = every_core.write(
        HEAD
        + "    - {name: doubled, debug: {msg: '{{ n | lab.tools.doubled }}'}}\n"
        + "    - {name: counted, debug: {msg: '{{ n | lab.tools.counted }} {{ -n | lab.tools.counted }}'}}\n"
    )
    core, ours = every_core.both(play, hosts=2, forks=2)
    assert not differences(core.events, ours.events)
    assert ours.tasks == {"inline": {"controller_only": 2}, "fork": {"filter:lab.tools.counted": 2}}
    vouched = every_core.run(play, LINEAR, hosts=2, forks=2, ANSIBLE_MITOGEN_SVC_SAFE_PLUGINS="lab.tools.counted")
    assert vouched.tasks == {"inline": {"controller_only": 4}}


SAYING = "from ansible.utils.display import Display\nDisplay().warning('so many words')\n"


def test_what_a_file_with_filters_says_is_in_the_result_of_each_task_with_a_filter(every_core: Lab) -> None:
    """Also where the condition is looked at beforehand, to choose a worker."""
    every_core.write(SAYING + PURE, "filter_plugins/saying.py")
    play = every_core.write(
        HEAD
        + "    - {command: echo, when: (n | doubled) > 0, register: conditional}\n"
        + "    - {command: echo, register: plain}\n"
        + "    - {debug: {msg: '{{ n | doubled }}'}, register: shown}\n"
        + "    - {debug: {msg: '{{ n }}'}, when: (n | string) == '', register: skipped}\n"
        + "    - {name: said, debug: {msg: '{{ [conditional, shown, skipped] | map(attribute=\"warnings\") }}'}}\n"
        + "    - {name: not said, debug: {msg: '{{ plain.warnings is undefined }}'}}\n"
    )
    for run in every_core.both(play, hosts=2, forks=2):
        assert [each["msg"] for each in run.results("said").values()] == [[["so many words"]] * 3] * 2, run.output
        assert [each["msg"] for each in run.results("not said").values()] == [True, True]


@where_workers_are_chosen
def test_plugins_named_safe_share_the_process(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + "    - {name: action, misbehaves: {how: pid}}\n"
        + "    - {name: lookup, debug: {msg: \"{{ lookup('whose_process') }}\"}}\n"
    )
    run = lab.run(play, LINEAR, hosts=2, forks=2, **SAFE, **PLUGINS)
    pids = {result["pid"] for result in run.results("action").values()}
    assert pids == {result["msg"] for result in run.results("lookup").values()} and len(pids) == 1


def test_a_task_that_turns_out_to_need_a_process_is_run_once(lab: Lab) -> None:
    """Item 1 is done before item 2 shows that it needs a lookup nobody vouched for."""
    play = lab.write(
        HEAD
        + "    - name: late\n      shell: echo {{ line }} >> {{ scratch }}/log\n      loop: [1, 2, 3]\n"
        + "      vars: {line: \"{{ lookup('whose_process') if item == 2 else item }}\"}\n"
        + "    - {name: lines, command: 'wc -l {{ scratch }}/log'}\n"
    )
    run = lab.run(play, LINEAR, hosts=1, forks=1, **PLUGINS)
    assert run.results("lines")["h01"]["stdout"].startswith("3 "), run.output
    assert forced or run.tasks == {"thread": {"remote": 2}}


def test_items_before_the_one_that_needs_a_process_are_told_of_once(every_core: Lab) -> None:
    play = every_core.write(
        HEAD
        + "    - {name: skipped, debug: {msg: \"{{ lookup('pipe', 'echo 2') }}\"}, loop: [1, 2], when: item == 2}\n"
        + "    - name: failed\n      command: \"echo {{ lookup('pipe', 'echo 2') if item == 2 else unknown }}\"\n"
        + "      loop: [1, 2]\n      ignore_errors: true\n"
    )
    core, ours = every_core.both(play, hosts=1)
    assert not differences(core.events, ours.events)
    assert len([each for each in ours.events if "v2_runner_item" in each["event"]]) == 4


def test_each_url_is_asked_for_in_the_name_of_its_own_user(lab: Lab) -> None:
    """Core installs what asks for it, credentials and all, for the whole process, and uses what is installed then."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            self.send_response(200 if given else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.end_headers()
            self.wfile.write(base64.b64decode(given.split()[1]) if given else b"")

        def log_message(self, *arguments: object) -> None:
            pass

    url = "lookup('url', address, username='u' ~ n, password='p')"
    play = lab.write(HEAD + f'    - {{name: who, command: "echo {{{{ {url} }}}}"}}\n')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        variables = {"address": f"http://127.0.0.1:{server.server_port}/"}
        core, ours = lab.both(play, hosts=4, forks=4, variables=variables, TEST_SLOW_OPENER="0.5")
        server.shutdown()
    assert not differences(core.events, ours.events)
    said = {host: result["stdout"] for host, result in ours.results("who", "v2_runner_on_ok").items()}
    password = "p" if "skipped=" in ours.output else "$REDACTED$"  # 2.22 hides it in all words
    assert said == {f"h0{n}": f"u{n}:{password}" for n in range(1, 5)}, ours.output[-3000:]
    assert forced or ours.tasks == {"fork": {"lookup:url": 4}}


def test_task_timeouts_end_tasks_with_the_error_of_core(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + "    - {name: slow, command: sleep 20, timeout: 1, ignore_errors: true}\n"
        + "    - {name: retried, command: 'true', timeout: 9}\n"
    )
    core, ours = lab.both(play, hosts=2, forks=2)
    assert not differences(core.events, ours.events)
    assert forced or ours.tasks == {"fork": {"timeout": 4}}


def test_decrypted_files_of_a_vault_are_gone_after_the_run(lab: Lab) -> None:
    (lab.directory / "password").write_text("secret")
    vaulted = lab.directory / "vaulted.txt"
    vaulted.write_text("plain content of the vault\n")
    subprocess.run(
        [lab.venv / "bin" / "ansible-vault", "encrypt", "--vault-password-file", lab.directory / "password", vaulted],
        check=True,
        capture_output=True,
        env={**lab.environment("linear")},
    )
    play = lab.write(
        HEAD
        + f"    - {{name: sources, copy: {{src: {vaulted}, dest: '{{{{ scratch }}}}/{{{{ inventory_hostname }}}}'}}}}\n"
        + "    - {name: forks, command: 'true', timeout: 30}\n"
        + f"    - {{name: script, script: {{cmd: {vaulted}, executable: cat}}}}\n"
    )
    temporary = lab.directory / "controller"
    run = lab.run(
        play,
        LINEAR,
        "--vault-password-file",
        str(lab.directory / "password"),
        hosts=4,
        forks=4,
        ANSIBLE_LOCAL_TEMP=str(temporary),
    )
    assert run.returncode == 0, run.output
    assert run.results("script")["h01"]["stdout"] == "plain content of the vault\n"
    left = [path for path in temporary.rglob("*") if path.is_file() and b"plain content" in path.read_bytes()]
    assert not left


def test_throttled_tasks_never_run_beside_more_than_they_may(lab: Lab) -> None:
    for strategy in ("linear", "free", "host_pinned"):
        play = lab.write(
            HEAD
            + '    - {name: throttled, throttle: 2, shell: "echo + >> {{ scratch }}/log; sleep 0.2;'
            + ' echo - >> {{ scratch }}/log"}\n'
        )
        log = lab.directory / f"{strategy}-scratch"
        log.mkdir()
        run = lab.run(play, OURS + strategy, hosts=6, forks=6, variables={"scratch": str(log)})
        assert forced or run.tasks == {"thread": {"remote": 6}}
        running, most = 0, 0
        for sign in (log / "log").read_text().split():
            running += 1 if sign == "+" else -1
            most = max(most, running)
        assert most == 2, strategy


def test_facts_are_read_while_they_change_without_errors(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + "    - set_fact: {base: \"{{ dict(range(300) | map('string') | zip(range(300))) }}\", cacheable: true}\n"
        + "    - include_tasks: inner.yml\n      loop: [1, 2]\n      loop_control: {loop_var: round}\n"
    )
    lab.write(
        # until keeps these in threads; inline they would not meet.
        "- set_fact: {'new_{{ round }}_{{ n }}': \"{{ groups['many'] | map('extract', hostvars, 'base')"
        " | map('length') | sum }}\", cacheable: true}\n"
        "  until: true\n  retries: 1\n  delay: 0\n"
        "- group_by: {key: 'g_{{ round }}_{{ n % 4 }}'}\n  until: true\n  retries: 1\n  delay: 0\n"
        "- debug: {msg: \"{{ groups.values() | map('length') | sum }} {{ groups['many'] | map('extract', hostvars,"
        " 'group_names') | map('length') | sum }}\"}\n  until: true\n  retries: 1\n  delay: 0\n",
        "inner.yml",
    )
    run = lab.run(play, LINEAR, hosts=16, forks=16, TEST_SWITCH_INTERVAL="0.00001")
    assert run.returncode == 0, run.output[-3000:]
    assert forced or run.tasks["thread"]["waits"] == 16 * 6


def test_plugins_are_loaded_whole_whatever_thread_asks_first(lab: Lab) -> None:
    """16 threads meet lookups, filters and tests that nothing has loaded before."""
    play = lab.write(
        HEAD
        + "    - name: cold\n      until: true\n      retries: 1\n      delay: 0\n      debug:\n"
        + "        msg: \"{{ lookup('sequence', 'count=2') }} {{ lookup('dict', {}) }} {{ [1] | zip([2]) | list }}"
        + " {{ 'x' | hash('md5') }} {{ '1' is version('1', '==') }} {{ query('nested', [1], [2]) }}"
        + " {{ lookup('ini', 'a', file='none.ini', errors='ignore') }} {{ [1, 2] is superset([1]) }}\"\n"
    )
    for _repeat in range(3):
        run = lab.run(play, LINEAR, hosts=16, forks=16, TEST_SWITCH_INTERVAL="0.00001")
        assert run.returncode == 0, run.output[-3000:]


def test_forks_beside_busy_threads_never_hang(lab: Lab) -> None:
    """free: some hosts are always in threads while others are forked."""
    tasks = "".join(
        f"    - {{command: 'echo {{{{ hidden if (n + {number}) % 3 == 0 else 1 }}}}', vars: *hidden}}\n"
        f"    - {{name: d{number}, debug: {{msg: '{{{{ hostvars | length }}}}'}}}}\n"
        for number in range(6)
    )
    head = (
        "- hosts: localhost\n  gather_facts: false\n  vars: &hidden {hidden: \"{{ lookup('pipe', 'echo x') }}\"}\n"
        + HEAD
    )
    run = lab.run(lab.write(head + tasks), OURS + "free", hosts=8, forks=8, timeout=120)
    assert run.returncode == 0, run.output[-3000:]
    assert forced or run.tasks["fork"]["lookup:pipe"] >= 12
    assert len([event for event in run.events if event["event"] == "v2_runner_on_ok"]) == 8 * 12


def test_worker_processes_that_connect_at_once_never_hang(ssh_lab: Lab) -> None:
    """Forks while the broker starts ssh for those that were forked before: see services/starting.py."""
    play = ssh_lab.write(HEAD + "    - {name: connects, ping: , timeout: 200}\n")
    run = ssh_lab.run(play, LINEAR, hosts=16, forks=16, timeout=250)
    assert run.returncode == 0, run.output[-3000:]
    assert run.statistics["connections"]["opened"] == 16


def test_an_sshpass_that_a_task_brings_is_found_by_the_next_one(ssh_lab: Lab) -> None:
    """The ssh plugin remembers that there was none, which under core ends with the task's process."""
    found = shutil.which("sshpass")
    if found is None:
        pytest.skip("there is no sshpass to bring")
    password = "vars: {ansible_password: unused, ansible_ssh_password_mechanism: sshpass}"
    play = ssh_lab.write(
        HEAD
        + f"    - {{name: without, ping: , ignore_errors: true, ignore_unreachable: true, {password}}}\n"
        + "    - {name: brings, delegate_to: localhost, vars: {ansible_connection: local}, "
        + f"file: {{src: {found}, dest: '{{{{ programs }}}}/sshpass', state: link}}}}\n"
        + f"    - {{name: with, ping: , {password}}}\n"
    )
    runs = []
    for strategy in ("linear", LINEAR):
        programs = ssh_lab.directory / f"programs-{len(runs)}"
        programs.mkdir()
        (programs / "ssh").symlink_to(shutil.which("ssh") or "")
        runs.append(
            ssh_lab.run(play, strategy, hosts=1, forks=1, variables={"programs": str(programs)}, PATH=str(programs))
        )
    for run in runs:
        assert "sshpass program" in str(run.results("without")["h01"]["msg"])
        assert run.results("with")["h01"].get("ping") == "pong", run.output[-2000:]


def test_a_failing_task_opens_the_debugger_as_under_core(lab: Lab) -> None:
    play = lab.write(
        HEAD + "    - {name: fails, fail: {msg: no}, debugger: on_failed}\n    - {name: next, debug: {msg: 1}}\n"
    )
    core, ours = lab.both(play, hosts=1, forks=1, stdin="p task.name\nc\n")
    assert ours.output.count("(debug)>") == core.output.count("(debug)>") == 2
    assert "'fails'" in ours.output or "fails" in ours.output
    assert forced or ours.tasks == {"fork": {"debugger": 1}}


def test_redo_in_the_debug_strategy_runs_the_task_again(lab: Lab) -> None:
    play = lab.write(HEAD + "    - {name: fails, fail: {msg: '{{ n }}'}}\n    - {name: next, debug: {msg: 1}}\n")
    core, ours = lab.both(play, "debug", hosts=1, forks=1, stdin="task.args['msg'] = 'second'\nr\nc\n")
    assert not differences(core.events, ours.events)
    assert len([each for each in ours.events if each["event"] == "v2_runner_on_failed"]) == 2


def test_a_pause_without_a_terminal_behaves_as_under_core(lab: Lab) -> None:
    play = lab.write(HEAD + "    - {name: waits, pause: {seconds: 1}}\n    - {name: asks, pause: {prompt: yes?}}\n")
    core, ours = lab.both(play, hosts=2, forks=2)
    # Their results say how long they took.
    core_told, ours_told = (
        [each for each in run.events if each.get("task") not in ("waits", "asks")] for run in (core, ours)
    )
    assert core_told and not differences(core_told, ours_told)
    assert forced or ours.tasks == {"fork": {"prompt": 2}}
    assert ours.returncode == core.returncode


def test_memory_of_a_result_is_not_shared_between_hosts(lab: Lab) -> None:
    play = lab.write(
        HEAD
        + "    - {name: once, set_fact: {shared: [1]}, run_once: true}\n"
        + "    - {name: append, debug: {msg: '{{ shared.append(n) }}{{ shared }}'}}\n"
        + "    - {name: still, debug: {msg: '{{ shared }}'}}\n"
    )
    core, ours = lab.both(play, hosts=4, forks=4)
    assert not differences(core.events, ours.events)
    assert {json.dumps(each["msg"]) for each in ours.results("still").values()} == {"[1]"}


def test_a_callback_may_empty_the_arguments_of_the_tasks_it_is_told_about(every_core: Lab) -> None:
    play = every_core.write(
        HEAD
        + "    - {name: items, debug: {msg: [1, 2]}, loop: [1, 2], register: shown}\n"
        + "    - {name: kept, debug: {msg: \"{{ shown.results | map(attribute='msg') | list }}\"}}\n"
        + "    - name: again\n      register: ran\n"
        + "      command: {argv: [sh, -c, 'rm {{ scratch }}/{{ n }} || ! touch {{ scratch }}/{{ n }}']}\n"
        + "      until: ran is success\n      retries: 3\n      delay: 1\n"
    )
    scrubbing = {"ANSIBLE_CALLBACKS_ENABLED": "event_stream,scrubs_arguments"}
    for run in every_core.both(play, hosts=2, forks=2, **scrubbing):
        assert [each["msg"] for each in run.results("kept").values()] == [[[1, 2], [1, 2]]] * 2, run.output
        assert len(run.results("again", "v2_runner_on_ok")) == 2, run.output


ADDS = """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    _requires_connection = False
    def run(self, tmp=None, task_vars=None):
        self._task.environment.append({"ATTEMPT": "one more"})
        return super().run(tmp, task_vars)
"""
WAITS = """
import time
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "waits"
    CALLBACK_NEEDS_ENABLED = True
    def v2_runner_retry(self, result):
        time.sleep(0.5)
"""


def test_a_callback_is_told_what_a_task_was_when_it_was_told(every_core: Lab) -> None:
    """Core's actions add to the environment as they start a job; the next attempt does while callbacks hear of this."""
    every_core.write(ADDS, "action_plugins/adds.py")
    every_core.write(WAITS, "callback_plugins/waits.py")
    play = every_core.write(HEAD + "    - {name: tries, adds: {}, until: false, retries: 2, delay: 0}\n")
    slow = {**SAFE, "ANSIBLE_CALLBACKS_ENABLED": "waits,event_stream"}
    core, ours = every_core.both(play, hosts=2, forks=2, **slow)
    for run in (core, ours):
        told = [each for each in run.events if each["event"] == "v2_runner_retry" and each["host"] == "h01"]
        assert [len(each["attributes"]["environment"]) for each in told] == [2, 3], run.output
    assert not differences(core.events, ours.events)


def test_local_commands_have_the_environment_that_ansible_playbook_has_now(lab: Lab) -> None:
    shown = "$COUNTED $UNTIL_THIRD $FROM_START $PYTHONHASHSEED $OWN"
    own = "environment: {OWN: o, COUNTED: own}"
    play = lab.write(
        HEAD
        + "".join(
            f"    - {{name: {name}, shell: 'echo {shown}'{more}}}\n"
            for name, more in {"first": "", "own": f", {own}", "third": "", "fourth": "", "last": f", {own}"}.items()
        )
    )
    changing = {"ANSIBLE_CALLBACKS_ENABLED": "event_stream,changes_environment", "FROM_START": "there"}
    for run in lab.both(play, hosts=2, forks=2, **changing):
        said = [run.results(name)["h02"]["stdout"] for name in ("first", "own", "third", "fourth", "last")]
        assert said == ["1 here there", "own here there o", "3", "4 4", "own 4 o"], run.output
    # What Python reads while it starts is read by one that starts.
    assert run.statistics["module_runs"]["cold"] == {"environment PYTHONHASHSEED": 4}


@pytest.mark.parametrize("hosts", ["lab", "ssh_lab"])
def test_a_remote_tmp_without_a_leading_slash_is_where_commands_start(
    request: pytest.FixtureRequest, hosts: str
) -> None:
    """Over ssh that is the home, for local connections the playbook's directory."""
    lab: Lab = request.getfixturevalue(hosts)
    place = f".svc-test-{os.getpid()}"
    lab.write("echo said\n", "say.sh")
    lab.write("in a tree\n", "tree/inner/file")
    lab.write("in a tree\n", "tree/file")
    lab.write("x" * 300000, "larger")
    play = lab.write(
        f"- hosts: many\n  gather_facts: false\n  vars: {{ansible_remote_tmp: {place}/tmp}}\n  tasks:\n"
        "    - {name: file, copy: {dest: '{{ scratch }}/file', content: x}}\n"
        "    - {name: larger, copy: {dest: '{{ scratch }}/', src: larger}}\n"
        "    - {name: tree, copy: {src: tree, dest: '{{ scratch }}/'}}\n"
        "    - {name: script, script: say.sh}\n"
        "    - {name: in files, ping: null, vars: {ansible_pipelining: false}}\n"
        f"    - {{name: left, command: find {place} -mindepth 2}}\n"
        f"    - {{file: {{path: {place}, state: absent}}}}\n"
    )
    core, ours = lab.both(play, hosts=1, ANSIBLE_PIPELINING="true")
    assert core.returncode == ours.returncode == 0, ours.output
    assert [each["stdout"] for each in ours.results("left").values()] == [""], "temporary directories are left"
    assert not differences(core.events, ours.events)


def test_variables_of_connections_may_be_templates_in_each_item_and_each_task(every_core_over_ssh: Lab) -> None:
    """Core gives connections a play context with variables as they were written."""
    variables = {
        "ansible_ssh_timeout": "{{ 20 + n }}",
        "ansible_ssh_retries": "{{ n - 1 }}",
        "ansible_ssh_extra_args": "-o SetEnv=B={{ n }}",
        "ansible_host_key_checking": "{{ n > 0 }}",
        "ansible_shell_executable": "{{ '/bin/' ~ 'sh' }}",
        "ansible_remote_tmp": "{{ scratch }}/{{ n }}",
        "ansible_become_user": "{{ 'no' ~ 'body' }}",
        "ansible_become_flags": "{{ '-H -S -n' }}",
        "ansible_user": "{{ 'root' }}",
        "ansible_python_interpreter": "{{ '/usr/bin/' ~ 'python3' }}",
    }
    play = every_core_over_ssh.write(
        HEAD
        + "    - {name: first, command: echo one, changed_when: false}\n"
        + "    - {name: items, command: 'echo {{ item }}', loop: [1, 2, 3]}\n"
        + "    - {name: written, copy: {content: '{{ n }}', dest: '{{ scratch }}/of {{ n }}'}}\n"
        + "    - {name: theirs, command: id -un, become: true, loop: [1, 2]}\n"
    )
    core, ours = every_core_over_ssh.both(play, hosts=2, forks=2, variables=variables)
    assert core.returncode == ours.returncode == 0, core.output + ours.output
    assert not differences(core.events, ours.events)


def test_a_become_command_decides_what_is_left_of_the_environment(lab: Lab) -> None:
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("sudo wants a password here")
    play = lab.write(
        HEAD
        + "".join(f"    - {{name: task {number}, shell: 'echo $COUNTED', become: true}}\n" for number in range(1, 4))
        + "    - {name: own, shell: 'echo $COUNTED', become: true, environment: {COUNTED: own}}\n"
    )
    changing = {
        "ANSIBLE_CALLBACKS_ENABLED": "event_stream,changes_environment",
        "ANSIBLE_BECOME_ALLOW_SAME_USER": "true",
    }
    for run in lab.both(play, hosts=1, forks=1, **changing):
        said = [run.results(name)["h01"]["stdout"] for name in ("task 1", "task 2", "task 3", "own")]
        assert said == ["", "", "", "own"], run.output


def test_beyond_a_hop_commands_have_nothing_of_the_environment_of_ansible_playbook(lab: Lab) -> None:
    """As far as a test can tell whose hop is this machine: what changes after the start is not passed on."""
    shown = "{shell: 'echo $COUNTED $UNTIL_THIRD', vars: {ansible_mitogen_svc_via: h01}"
    play = lab.write(
        HEAD.replace("many", "h02")
        + "".join(f"    - {shown}, name: task {number}}}\n" for number in range(1, 4))
        + "    - {name: a snippet, raw: echo $COUNTED, vars: {ansible_mitogen_svc_via: h01}}\n"
    )
    changing = {"ANSIBLE_CALLBACKS_ENABLED": "event_stream,changes_environment", "COUNTED": "first"}
    run = lab.run(play, LINEAR, hosts=2, forks=2, **changing)
    said = [run.results(name)["h02"].get("stdout") for name in ("task 1", "task 2", "task 3", "a snippet")]
    assert [each and each.strip() for each in said] == ["first"] * 4, run.output


SECRETS = """
- hosts: many
  gather_facts: false
  tasks:
    - {name: shown, debug: {msg: 'it is {{ secret }}'}}
    - {name: by a module, command: 'echo {{ secret }}', register: echoed}
    - {name: registered, debug: {var: echoed.stdout}}
    - {name: by an exception, fail: {msg: 'no {{ secret }}'}, ignore_errors: true}
    - {name: undefined, debug: {msg: '{{ secret.nothing.of_it }}'}, ignore_errors: true}
    - {name: forked, command: 'echo {{ secret }}', timeout: 60}
    - {name: items, debug: {msg: '{{ item }}'}, loop: ['{{ secret }}', other]}
    - {name: hidden, command: 'echo {{ secret }}', no_log: true}
"""


def test_secrets_are_shown_and_masked_as_under_core(every_core: Lab) -> None:
    """From 2.22 on core masks what came out of a vault, wherever it is shown; before, it does not."""
    lab = every_core
    (lab.directory / "password").write_text("of the vault")
    encrypted = subprocess.run(
        [lab.venv / "bin" / "ansible-vault", "encrypt_string", "--vault-password-file", lab.directory / "password"]
        + ["--name", "secret", "f7-Very-secret-9e"],
        check=True,
        capture_output=True,
        text=True,
        env=lab.environment("linear"),
    ).stdout
    variables = lab.write(encrypted, "secrets.yml")
    arguments = ["-v", "--vault-password-file", str(lab.directory / "password"), "-e", f"@{variables}"]
    core, ours = lab.both(lab.write(SECRETS), "linear", *arguments, hosts=2, forks=2)
    assert not differences(core.events, ours.events)
    assert forced or set(ours.tasks) == {"inline", "thread", "fork"}
    # Lines of one run may come in another order, and an error may be shown once for both hosts.
    assert ours.output.count("f7-Very-secret") == core.output.count("f7-Very-secret")
    assert ours.output.count("REDACTED") == core.output.count("REDACTED")
