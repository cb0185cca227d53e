# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The command `ansible-mitogen-svc`, run as users run it, over connection local."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from rig.playbook import REPOSITORY

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: pathlib.Path) -> Command:
    """Runs ``ansible-mitogen-svc`` in tmp_path with an inventory hosts.json of two local hosts."""
    namespace = tmp_path / "collections/ansible_collections/ansible_mitogen"
    namespace.mkdir(parents=True)
    (namespace / "svc").symlink_to(REPOSITORY)
    variables = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    inventory = {"all": {"vars": variables, "hosts": {"one": {}, "two": {}}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        places = {
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
            "ANSIBLE_HOME": str(tmp_path / ".ansible"),
            "PYTHONPATH": str(REPOSITORY),
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "ansible_mitogen_svc.command", *arguments],
            cwd=tmp_path,
            env={**kept, **places, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def write(path: pathlib.Path, tasks: str, **keywords: str) -> str:
    lines = ["- hosts: all", "  gather_facts: false", *(f"  {name}: {value}" for name, value in keywords.items())]
    path.write_text("\n".join([*lines, "  tasks:", *("    " + line for line in tasks.splitlines())]) + "\n")
    return str(path)


def test_doctor_tells_versions_and_what_the_configuration_says(command: Command, tmp_path: pathlib.Path) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstrategy = ansible_mitogen.svc.free\n")
    done = command("doctor", "-i", "hosts.json")
    assert done.returncode == 0, done.stderr
    for text in ("ansible-core 2.", "mitogen 0.", "OpenSSH", "open files: ", "strategy: ansible_mitogen.svc.free"):
        assert text in done.stdout
    assert f"configuration file: {tmp_path / 'ansible.cfg'}" in done.stdout
    assert "one, two: connection local stays open for the whole run" in done.stdout


@pytest.mark.parametrize(("package", "name"), [("mitogen", "mitogen"), ("ansible", "ansible-core")])
def test_doctor_says_what_to_install_where_a_package_is_missing(package: str, name: str) -> None:
    main = "from ansible_mitogen_svc.command.main import main; sys.exit(main(['doctor', '-i', 'localhost,']))"
    program = f"import sys; sys.modules[{package!r}] = None; {main}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert f"failed  {name} is missing" in done.stdout and f"-m pip install {name}" in done.stdout


@pytest.mark.parametrize("text", ["no program", "#!/bin/sh\nexit 3\n"])
def test_doctor_warns_of_an_ssh_that_does_not_work(command: Command, tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(text)
    (tmp_path / "bin/ssh").chmod(0o755)
    done = command("doctor", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning the ssh on PATH does not tell its version" in done.stdout


def test_doctor_warns_of_too_few_open_files(command: Command, tmp_path: pathlib.Path) -> None:
    hosts = {f"h{number}": {} for number in range(400)}
    (tmp_path / "many.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    script = f"ulimit -n 512; exec {sys.executable} -m ansible_mitogen_svc.command doctor -i many.json"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "warning open files: 512 allowed, about 1274 needed (hosts: 400, forks: 5)" in done.stdout


def test_doctor_names_the_reason_for_each_task_and_host_that_is_not_accelerated(
    command: Command, tmp_path: pathlib.Path
) -> None:
    hosts = {"ours": {}, "win": {"ansible_connection": "winrm"}, "files": {"ansible_pipelining": False}}
    (tmp_path / "mixed.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    playbook = write(
        tmp_path / "play.yml",
        "- {name: quick, ping: }\n- {name: timed, ping: , timeout: 5}\n- {name: said, debug: {msg: x}}",
    )
    done = command("doctor", "-i", "mixed.json", playbook)
    assert done.returncode == 0, done.stderr
    assert "ours: connection ssh stays open" in done.stdout
    assert "win: connection winrm is left to ansible-core" in done.stdout
    assert "files: connection ssh stays open; modules go as files" in done.stdout
    assert "quick: in a thread (remote) on 2 of 3 hosts" in done.stdout
    assert "quick: in a process of its own (connection:winrm) on 1 of 3 hosts" in done.stdout
    assert "timed: in a process of its own (timeout)" in done.stdout
    assert "said: in the main thread (controller_only) on 2 of 3 hosts" in done.stdout


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ANSIBLE_STRATEGY": "ansible_mitogen.svc.liner"}, "ansible_mitogen.svc.liner is none of linear, free"),
        ({"ANSIBLE_COLLECTIONS_PATH": "/absent", "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "0"}, "svc is not installed"),
    ],
)
def test_doctor_fails_where_core_finds_no_such_strategy(
    command: Command, environment: dict[str, str], words: str
) -> None:
    done = command("doctor", **{"ANSIBLE_STRATEGY": "ansible_mitogen.svc.linear", **environment})
    assert done.returncode == 1 and "failed" in done.stdout and words in done.stdout, done.stdout + done.stderr


def test_doctor_follows_the_settings_of_the_strategy(command: Command, tmp_path: pathlib.Path) -> None:
    playbook = write(tmp_path / "play.yml", "- {name: quick, ping: }")
    done = command("doctor", "-i", "hosts.json", playbook, ANSIBLE_MITOGEN_SVC_TASK_WORKERS="fork")
    assert "quick: in a process of its own (task_workers=fork)" in done.stdout


def test_compare_finds_nothing_between_two_strategies_in_check_mode_and_changes_nothing(
    command: Command, tmp_path: pathlib.Path
) -> None:
    playbook = write(
        tmp_path / "play.yml", f"- copy: {{content: x, dest: '{tmp_path}/made-{{{{ inventory_hostname }}}}'}}"
    )
    done = command("compare", "--check", playbook, "-i", "hosts.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "results: identical" in done.stdout and "time: " in done.stdout
    assert "ok=1    changed=1" in done.stdout
    assert not list(tmp_path.glob("made-*"))


def test_compare_shows_a_difference_and_says_so_by_its_status(command: Command, tmp_path: pathlib.Path) -> None:
    text = '- {name: who, command: \'echo {{ ansible_play_hosts | length }} {{ lookup("env", "ANSIBLE_STRATEGY") }}\'}'
    playbook = write(tmp_path / "play.yml", text)
    done = command("compare", "--real", playbook, "-i", "hosts.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "core: '2 ansible.builtin.linear'" in done.stdout
    assert "ours: '2 ansible_mitogen.svc.linear'" in done.stdout


def test_compare_finds_the_playbook_where_ansible_playbook_would(command: Command, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "play.yml", "- {name: number, assert: {that: number == '2'}}")
    done = command("compare", "-i", "hosts.json", "--check", "-e", "number=2", "play.yml", "--limit", "two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two " in done.stdout and "one " not in done.stdout and "results: identical" in done.stdout


def completions(tmp_path: pathlib.Path, line: str) -> list[str]:
    """What argcomplete offers to a shell for this line; it answers on descriptor 8, see its documentation."""
    pytest.importorskip("argcomplete", reason="argcomplete is not installed (extra: test)")
    script = f"exec {sys.executable} -m ansible_mitogen_svc.command 8>offered 9>/dev/null >/dev/null"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    places = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **asked, "PYTHONPATH": os.pathsep.join(places)}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, timeout=60)
    return [word.strip() for word in (tmp_path / "offered").read_text().splitlines()]


def test_shells_complete_commands_and_their_options(tmp_path: pathlib.Path) -> None:
    assert {"doctor", "compare", "clean"} <= set(completions(tmp_path, "ansible-mitogen-svc "))
    assert "--inventory" in completions(tmp_path, "ansible-mitogen-svc doctor --in")
    assert "--rounds" in completions(tmp_path, "ansible-mitogen-svc compare --ro")


@pytest.mark.long
def test_compare_for_real_compares_the_final_state_or_what_a_reset_brings_back(
    command: Command, tmp_path: pathlib.Path
) -> None:
    playbook = write(
        tmp_path / "play.yml", f"- copy: {{content: x, dest: '{tmp_path}/made-{{{{ inventory_hostname }}}}'}}"
    )
    settled = command("compare", "--real", playbook, "-i", "hosts.json")
    assert settled.returncode == 0 and "changed=0" in settled.stdout, settled.stdout + settled.stderr
    assert len(list(tmp_path.glob("made-*"))) == 2
    reset = command("compare", "--real", "--reset", f"rm {tmp_path}/made-*", playbook, "-i", "hosts.json")
    assert reset.returncode == 0 and "changed=1" in reset.stdout, reset.stdout + reset.stderr


def test_compare_points_out_plays_that_choose_their_strategy(command: Command, tmp_path: pathlib.Path) -> None:
    playbook = write(tmp_path / "play.yml", "- ping:", strategy="ansible.builtin.free")
    done = command("compare", "--check", playbook, "-i", "hosts.json")
    assert "names its strategy itself (ansible.builtin.free)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "required: COMMAND"),
        (("compare", "play.yml"), 2, "one of the arguments -C/--check --real is required"),
        (("compare", "--check", "-v"), 2, "a PLAYBOOK is required"),
        (("compare", "--check", "--rounds", "many", "play.yml"), 2, "must be a number, 1 or more"),
        (("compare", "--check", "--reset", "true", "play.yml"), 2, "--reset belongs to --real"),
        (("compare", "--check", "-i", "hosts.json", "absent.yml"), 3, "absent.yml could not be found"),
        (("compare", "--check", "hosts.json"), 3, "no task ran"),
        (("doctor", "--colour"), 2, "unrecognized arguments: --colour"),
        (("doctor", "-i", "hosts.json", "absent.yml"), 3, "cannot be read"),
        (("doctor", "-i", "absent.json"), 3, "no host is in"),
        (("doctor", "-i", "hosts.json", "-e", "@absent.yml"), 3, "a value of -e cannot be read"),
        (("doctor", "-i", "hosts.json", "-l", "absent"), 3, "and matches absent"),
        (("clean",), 2, "-i/--inventory"),
        (("clean", "-i", "absent.json"), 3, "no host was tried"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_message_with_its_status(
    command: Command, arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = command(*arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["[defaults]\nforks = many\n", "[defaults\nforks = 5\n"])
def test_a_configuration_that_core_cannot_read_is_said_in_one_message(
    command: Command, tmp_path: pathlib.Path, text: str
) -> None:
    (tmp_path / "ansible.cfg").write_text(text)
    found = command("doctor", "-i", "hosts.json")
    assert found.returncode == 1 and "failed  the configuration of ansible-core cannot be read: " in found.stdout
    compared, cleaned = command("compare", "--check", "play.yml"), command("clean", "-i", "hosts.json")
    assert (compared.returncode, cleaned.returncode) == (3, 3)
    for done in (found, compared, cleaned):
        assert str(tmp_path / "ansible.cfg") in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("compare", "--check", "play.yml"), ("clean", "-i", "hosts.json")])
def test_what_needs_ansible_core_says_where_to_install_it(arguments: tuple[str, ...]) -> None:
    main = f"from ansible_mitogen_svc.command.main import main; sys.exit(main({list(arguments)}))"
    code = f"import sys; sys.modules['ansible'] = None; {main}"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and done.stderr.startswith("ansible-mitogen-svc: ansible-core is missing"), done.stderr


def test_compare_takes_the_end_of_the_options_as_ansible_playbook_does(
    command: Command, tmp_path: pathlib.Path
) -> None:
    write(tmp_path / "-play.yml", "- ping:")
    for before in (["-i", "hosts.json"], []):
        done = command("compare", "--check", *before, "--", "-play.yml", ANSIBLE_INVENTORY="hosts.json")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "passed_on"),
    [
        (["compare", "-CD", "site.yml"], ["-D", "site.yml"]),
        (["compare", "-Cvv", "-i", "h", "site.yml"], ["-vv", "-i", "h", "site.yml"]),
        (["compare", "-C", "-DC", "--", "-CD"], ["-DC", "--", "-CD"]),
    ],
)
def test_letters_of_options_may_stand_together(words: list[str], passed_on: list[str]) -> None:
    code = "import sys; from ansible_mitogen_svc.command import comparing, main; "
    code += f"comparing.run = lambda options, rest: print(options.check, *rest) or 0; sys.exit(main.main({words}))"
    # Each Python that there is: ours may be one that needs no help with this.
    pythons = {sys.executable, *filter(None, map(shutil.which, ("python3.11", "python3.12", "/usr/bin/python3")))}
    for python in pythons:
        if subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode:
            continue
        done = subprocess.run([python, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["True", *passed_on], done.stdout + done.stderr


def test_doctor_points_out_plays_that_choose_another_strategy(command: Command, tmp_path: pathlib.Path) -> None:
    play = write(tmp_path / "play.yml", "- ping:", strategy="ansible.builtin.free")
    own = write(tmp_path / "own.yml", "- ping:", strategy="ansible_mitogen.svc.free")
    told = command("doctor", "-i", "hosts.json", play).stdout
    assert "note    play 'all' (hosts: 2), under its own strategy ansible.builtin.free, which is not ours" in told
    assert "play 'all' (hosts: 2)\n" in command("doctor", "-i", "hosts.json", own).stdout
    variable = write(tmp_path / "variable.yml", "- ping:", strategy="'ansible_mitogen.svc.{{ kind }}'")
    told = command("doctor", "-i", "hosts.json", "-e", "kind=free", variable).stdout
    assert "play 'all' (hosts: 2)\n" in told, told
    done = command("doctor", "-i", "hosts.json", "-e", "kind=fre", variable)
    assert done.returncode == 1 and "ansible-core finds no strategy ansible_mitogen.svc.fre" in done.stdout, done.stdout


def test_doctor_says_why_it_tells_nothing_of_a_plays_tasks(command: Command, tmp_path: pathlib.Path) -> None:
    done = command("doctor", write(tmp_path / "play.yml", "- ping:"))
    assert "play 'all' (hosts: 0): nothing is told of tasks that have no host" in done.stdout


def test_doctor_reads_what_a_vault_hides_with_the_password_that_the_configuration_names(
    command: Command, tmp_path: pathlib.Path
) -> None:
    vault = pathlib.Path(sys.executable).with_name("ansible-vault")
    (tmp_path / "password").write_text("secret")
    (tmp_path / "group_vars").mkdir()
    hidden = tmp_path / "group_vars/all.yml"
    hidden.write_text("ansible_connection: ssh")
    subprocess.run([vault, "encrypt", "--vault-password-file", "password", hidden], cwd=tmp_path, check=True)
    play = write(tmp_path / "play.yml", "- ping:")
    refused = command("doctor", "-i", "hosts.json", play)
    assert refused.returncode == 3 and "Traceback" not in refused.stderr, refused.stderr
    assert "the variables of one cannot be read" in refused.stderr
    (tmp_path / "ansible.cfg").write_text("[defaults]\nvault_password_file = password\n")
    done = command("doctor", "-i", "hosts.json", play)
    assert done.returncode == 0 and "one, two: connection ssh stays open" in done.stdout, done.stdout + done.stderr


def test_doctor_finds_collections_beside_the_playbook_and_hosts_in_variables(
    command: Command, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "site").mkdir()
    collection = tmp_path / "site/collections/ansible_collections/my/coll"
    (collection / "plugins/modules").mkdir(parents=True)
    (collection / "galaxy.yml").write_text("namespace: my\nname: coll\nversion: 1.0.0\n")
    (collection / "plugins/modules/foo.py").write_text("# nothing\n")
    play = tmp_path / "site/play.yml"
    write(play, "- my.coll.foo:")
    play.write_text(play.read_text().replace("hosts: all", 'hosts: "{{ target }}"'))
    done = command("doctor", "-i", "hosts.json", "-e", "target=two", str(play))
    assert done.returncode == 0 and "(hosts: 1)" in done.stdout, done.stdout + done.stderr
    assert "my.coll.foo: in a thread" in done.stdout and "WARNING" not in done.stderr


def test_results_that_are_hidden_are_not_compared_and_do_not_hide_what_clean_did(command: Command) -> None:
    refused = command("compare", "--check", "-i", "hosts.json", "play.yml", ANSIBLE_NO_LOG="1")
    assert refused.returncode == 3 and "no_log is on" in refused.stderr
    done = command("clean", "-i", "hosts.json", "--limit", "one", "--check", ANSIBLE_NO_LOG="1")
    assert done.returncode == 0 and done.stdout.startswith("one: "), done.stdout + done.stderr


def test_what_ansible_playbook_does_not_understand_is_shown_before_its_help(command: Command) -> None:
    refused = command("clean", "-i", "hosts.json", "--no-such-option")
    assert refused.returncode == 3 and "unrecognized arguments: --no-such-option" in refused.stderr


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a user whose cache it removes: needs root")
def test_clean_removes_the_cache_of_the_user_and_nothing_beside_it(command: Command, tmp_path: pathlib.Path) -> None:
    name = "svcclean"
    if name not in [entry.pw_name for entry in pwd.getpwall()]:
        subprocess.run(["useradd", "--create-home", name], check=True)
    try:
        home = pathlib.Path(pwd.getpwnam(name).pw_dir)
        become = ("-i", "hosts.json", "--limit", "one", "--become", "--become-user", name)
        make = write(tmp_path / "fill.yml", "- ping:")
        # The user cannot enter the command's directory, which is no hindrance to core's become either.
        filled = command("compare", "--check", make, *become)
        # (The first run ever of a user warns that it made ~/.ansible/tmp, so the two runs do differ.)
        assert filled.stdout.count("failed=0") == 2, filled.stdout + filled.stderr
        cache = home / ".cache/ansible_mitogen_svc"
        assert list(cache.rglob("*"))
        (home / ".cache/other").mkdir()
        tried = command("clean", *become, "--check")
        assert tried.returncode == 0 and list(cache.rglob("*")), tried.stdout + tried.stderr
        assert f"one: would remove {cache} (" in tried.stdout
        done = command("clean", *become)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"one: removed {cache} (" in done.stdout and "two" not in done.stdout
        assert not cache.exists() and (home / ".cache/other").exists()
        assert f"one: nothing at {cache}" in command("clean", *become).stdout
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        cache.symlink_to(elsewhere)
        refused = command("clean", *become)
        assert refused.returncode == 1 and "it was left alone" in refused.stdout
        assert elsewhere.exists() and cache.is_symlink()
    finally:
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        subprocess.run(["userdel", "--remove", name], stderr=subprocess.DEVNULL)
