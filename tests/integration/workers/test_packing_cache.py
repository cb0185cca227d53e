# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What packing a module found out stays between runs, and is never believed when anything has changed."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterator

import pytest
from ansible.module_utils.parsing import convert_bool

from ansible_mitogen_svc.controller import walk_record
from tests.integration.workers.conftest import OURS, Lab, Run, forced, venvs

pytestmark = pytest.mark.timeout(240)
LINEAR = OURS + "linear"
PLAY = """
- hosts: many
  gather_facts: false
  roles: [role]
  tasks:
    - {name: ours, mine: {text: "{{ 'a-secret' }}"}}
    - {name: collection, my.col.theirs: }
    - {name: core, ping: }
"""
MODULE = """
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.parsing import convert_bool
from {util} import VALUE
module = AnsibleModule(argument_spec=dict(text=dict(type='str')))
module.exit_json(value=VALUE + getattr(convert_bool, 'MARK', ''), own='one')
"""
#: Task that uses it, module, module_utils file, and how the module names that.
PARTS = {
    "ours": ("library/mine.py", "module_utils/mine_util.py", "ansible.module_utils.mine_util"),
    "role : of the role": ("roles/role/library/roles.py", "roles/role/module_utils/ru.py", "ansible.module_utils.ru"),
    "collection": (
        "collections/ansible_collections/my/col/plugins/modules/theirs.py",
        "collections/ansible_collections/my/col/plugins/module_utils/c_util.py",
        "ansible_collections.my.col.plugins.module_utils.c_util",
    ),
}
OVERRIDES = "module_utils", "home/plugins/module_utils"


def write_project(lab: Lab) -> Lab:
    """A playbook with modules of its own, a role's and a collection's, and places for files that override core's."""
    lab.write("- {name: of the role, roles: }\n", "roles/role/tasks/main.yml")
    for module, util, name in PARTS.values():
        lab.write(MODULE.format(util=name), module)
        lab.write("VALUE = 'first'\n", util)
    lab.write(PLAY)
    for place in OVERRIDES:
        (lab.directory / place).mkdir(parents=True, exist_ok=True)
    return lab


@pytest.fixture(scope="module", params=venvs(), ids=lambda venv: venv.name)
def projects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for each test that wants one, old enough to be recorded: all of them wait together."""
    wanted = [item for item in request.session.items if "projects" in getattr(item, "fixturenames", ())]
    labs = [write_project(Lab(tmp_path_factory.mktemp("project"), request.param)) for _test in wanted]
    time.sleep(walk_record.SETTLED + 1)
    return iter(labs)


@pytest.fixture
def project(projects: Iterator[Lab]) -> Lab:
    return next(projects)


def values(run: Run) -> dict[str, str]:
    return {task: run.results(task)["h01"]["value"] for task in PARTS}


def play(lab: Lab, **environment: str) -> Run:
    run = lab.run(lab.directory / "playbook.yml", LINEAR, hosts=1, **environment)
    assert run.returncode == 0, run.output
    return run


def records(lab: Lab) -> list[pathlib.Path]:
    """Records of walks; the directory also has the code that connections start with."""
    found = (lab.directory / "home" / "ansible_mitogen_svc" / "packing").glob("*")
    return sorted(path for path in found if b'{"places"' in path.read_bytes()[:80])


def replace(path: pathlib.Path, old: str, new: str) -> None:
    """Edit a file so that neither its size nor its times tell."""
    status = path.stat()
    text = path.read_text().replace(old, new)
    assert len(text) == status.st_size
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_second_run_walks_over_no_module_and_an_edit_is_seen_at_once(project: Lab) -> None:
    first = play(project)
    assert first.statistics["packing"] == {"recorded": 0, "walked": 4, "ahead": 0, "referred": 0}
    second = play(project)
    assert second.statistics["packing"] == {"recorded": 4, "walked": 0, "ahead": 0, "referred": 0}
    assert values(second) == values(first) == dict.fromkeys(PARTS, "first")

    expected = dict.fromkeys(PARTS, "first")
    for task, (_, util, _) in PARTS.items():
        replace(project.directory / util, "first", "other")
        expected[task] = "other"
        assert values(play(project)) == expected
    module = project.directory / PARTS["ours"][0]
    replace(module, "one", "two")
    assert play(project).results("ours")["h01"]["own"] == "two"


@pytest.mark.parametrize("place", OVERRIDES)
def test_a_file_that_overrides_one_of_core_is_seen_where_it_appears(project: Lab, place: str) -> None:
    play(project)
    before = play(project)
    assert before.statistics["packing"]["walked"] == 0
    own = pathlib.Path(convert_bool.__file__).read_text()
    project.write(own + "\nMARK = ' overridden'\n", f"{place}/parsing/convert_bool.py")
    assert values(play(project)) == dict.fromkeys(PARTS, "first overridden")
    (project.directory / place / "parsing" / "convert_bool.py").unlink()
    assert values(play(project)) == dict.fromkeys(PARTS, "first")


def test_damaged_records_are_passed_over_and_replaced(project: Lab) -> None:
    play(project)
    sizes = [path.stat().st_size for path in records(project)]
    for path, damage in zip(records(project), (b"", b"no record", None, None), strict=True):
        path.write_bytes(path.read_bytes().replace(b"sources", b"somehow")[:-9] if damage is None else damage)
    assert play(project).statistics["packing"] == {"recorded": 0, "walked": 4, "ahead": 0, "referred": 0}
    assert [path.stat().st_size for path in records(project)] == sizes
    assert play(project).statistics["packing"] == {"recorded": 4, "walked": 0, "ahead": 0, "referred": 0}


def test_records_belong_to_the_user_alone_and_hold_nothing_of_a_task(project: Lab) -> None:
    play(project)
    assert len(records(project)) == 4
    for path in records(project):
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text()
        assert not [word for word in ("a-secret", "h01", "VALUE =", "'first'") if word in text]
    assert records(project)[0].parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("others_may_write", ["directory", "parent", "file"])
def test_what_somebody_else_could_have_written_is_not_used(project: Lab, others_may_write: str) -> None:
    directory = project.directory / "elsewhere" / "records"
    here = {"ANSIBLE_MITOGEN_SVC_PACKING_CACHE_PATH": str(directory)}
    play(project, **here)
    assert play(project, **here).statistics["packing"]["recorded"] == 4
    opened = {"directory": [directory], "parent": [directory.parent], "file": list(directory.glob("*"))}
    for path in opened[others_may_write]:
        path.chmod(0o777)
    run = play(project, **here)
    assert run.statistics["packing"] == {"recorded": 0, "walked": 4, "ahead": 0, "referred": 0}
    assert ("the packing cache is not used" in run.output) == (others_may_write != "file")


def test_it_can_be_switched_off(project: Lab) -> None:
    off = {"ANSIBLE_MITOGEN_SVC_PACKING_CACHE": "false"}
    play(project, **off)
    assert play(project, **off).statistics["packing"] == {"recorded": 0, "walked": 4, "ahead": 0, "referred": 0}
    assert not (project.directory / "home" / "ansible_mitogen_svc").exists()


AHEAD = """
- hosts: many
  gather_facts: false
  tasks:
    - {name: before, command: sleep 3}
    - {name: first, ping: }
    - {name: second, stat: {path: /}}
    - {name: other, assert: {that: true}}
"""


def test_modules_of_coming_tasks_are_packed_while_a_task_waits(every_core: Lab) -> None:
    core, run = every_core.both(every_core.write(AHEAD), hosts=1)
    assert run.returncode == 0, run.output
    assert forced or run.statistics["packing"]["ahead"] >= 3  # command, ping, stat
    assert run.output.count("\n") == core.output.count("\n")


def test_nothing_is_packed_ahead_where_core_would_name_its_files(every_core: Lab) -> None:
    run = every_core.run(every_core.write(AHEAD), LINEAR, "-vvvvv", hosts=1)
    assert run.statistics["packing"]["ahead"] == 0
    assert run.output.count("Including module_utils file ansible/module_utils/basic.py") == 3


def test_a_module_that_was_packed_is_put_into_no_payload_again(lab: Lab) -> None:
    tasks = "".join(f"    - {{name: ping {number}, ping: }}\n" for number in range(4))
    lab.write("- hosts: many\n  gather_facts: false\n  tasks:\n" + tasks, "playbook.yml")
    statistics = play(lab).statistics
    assert statistics["packing"]["referred"] == 3 and sum(statistics["module_runs"]["zygote"].values()) == 4
