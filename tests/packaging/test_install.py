# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Each way of installing works alone, under each ansible-core release: the wheel, and the galaxy tarball.

Run by `make test-all`. A release whose Python is not on the machine is skipped with that reason.
"""

from __future__ import annotations

import email
import json
import pathlib
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from environments import RELEASES, REPOSITORY, Environment, Release, find_interpreter, make_artifact
from rig.errors import RigUnavailable
from rig.loopback_sshd import LoopbackSshd

PLUGINS = [
    *(("strategy", name) for name in ("linear", "free", "host_pinned", "debug")),
    *(("connection", name) for name in ("ssh", "local")),
    ("callback", "timeline"),
]
GALAXY = yaml.safe_load((REPOSITORY / "galaxy.yml").read_text())


def interpreter_for(release: Release) -> str:
    interpreter = find_interpreter(release.python)
    if interpreter is None:
        pytest.skip(f"no Python {release.python} on this machine for ansible-core {release.name}")
    return interpreter


@pytest.fixture(scope="session", params=RELEASES, ids=str)
def from_wheel(request: pytest.FixtureRequest, wheel: pathlib.Path, tmp_path_factory: Any) -> Environment:
    """An environment with the release and the wheel; mitogen comes as the wheel's dependency."""
    release: Release = request.param
    directory = tmp_path_factory.mktemp(f"wheel-{release.name}") / "venv"
    return Environment(directory, interpreter_for(release), [f"ansible-core{release.specifier}", str(wheel)])


@pytest.fixture(scope="session", params=RELEASES, ids=str)
def from_artifact(request: pytest.FixtureRequest, artifact: pathlib.Path, tmp_path_factory: Any) -> Environment:
    """An environment with the release, the collection installed by ansible-galaxy, and pip's -r of its requirements."""
    release: Release = request.param
    directory = tmp_path_factory.mktemp(f"galaxy-{release.name}") / "venv"
    made = Environment(directory, interpreter_for(release), [f"ansible-core{release.specifier}"])
    made.install_artifact(artifact)
    return made


@pytest.fixture(scope="session")
def host() -> Iterator[dict[str, object]]:
    """Variables of a host to run on: a throw-away sshd, or connection local where there can be none."""
    python = {"ansible_python_interpreter": shutil.which("python3", path="/usr/bin") or sys.executable}
    try:
        with LoopbackSshd() as sshd:
            yield {"ansible_host": sshd.addresses[0], **sshd.inventory_variables(), **python}
    except RigUnavailable as reason:
        print(f"connection local, for there is no sshd: {reason}")
        yield {"ansible_connection": "local", **python}


@pytest.fixture
def play(host: dict[str, object], tmp_path: pathlib.Path) -> Callable[[Environment], dict[str, Any]]:
    """Runs the playbook under ours in an environment and returns the run's statistics."""

    def run_playbook(environment: Environment) -> dict[str, Any]:
        inventory, statistics = tmp_path / "hosts.json", tmp_path / "statistics.json"
        inventory.write_text(json.dumps({"all": {"hosts": {"target": host}}}))
        environment.ansible(
            "ansible-playbook",
            *("-i", str(inventory), "-e", f"work={tmp_path}", str(HERE / "playbook.yml")),
            ANSIBLE_STRATEGY="ansible_mitogen.svc.linear",
            ANSIBLE_MITOGEN_SVC_STATS=str(statistics),
        )
        return dict(json.loads(statistics.read_text()))

    return run_playbook


def assert_accelerated(statistics: dict[str, Any]) -> None:
    runs = statistics["module_runs"]
    # setup, ping, file, stat and copy, command, two lineinfile, shell
    assert total(runs["zygote"]) >= 8, runs
    assert total(runs["core"]) == 0, runs


def total(counts: Any) -> int:
    return sum(map(total, counts.values())) if isinstance(counts, dict) else int(counts)


def assert_documented(environment: Environment) -> None:
    for kind, name in PLUGINS:
        full_name = f"ansible_mitogen.svc.{name}"
        text = environment.ansible("ansible-doc", "-t", kind, full_name)
        assert full_name in text
        documentation = json.loads(environment.ansible("ansible-doc", "-t", kind, "--json", full_name))
        for option, described in documentation[full_name]["doc"].get("options", {}).items():
            assert described.get("description"), f"{kind} {name}: option {option} has no description"
            for source in (*described.get("env", ()), *described.get("vars", ())):
                assert source["name"] in text, f"{kind} {name}: {option} does not show {source['name']}"
            for source in described.get("ini", ()):
                assert source["key"] in text and source["section"] in text, f"{kind} {name}: {option} hides {source}"


def test_wheel_needs_only_mitogen_and_core_without_upper_bound(from_wheel: Environment) -> None:
    code = "from importlib import metadata; print('\\n'.join(metadata.requires('ansible-mitogen-svc')))"
    lines = from_wheel.ansible("python", "-c", code).splitlines()
    needed = sorted(line for line in lines if "extra ==" not in line)
    assert [line.partition(">=")[0] for line in needed] == ["ansible-core", "mitogen"]
    assert not any(sign in line for line in needed for sign in ("<", "==", "~="))


def test_wheel_names_the_licences_of_all_that_it_has(wheel: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        told = email.message_from_string(archive.read(metadata).decode())
        marks = [archive.read(name).decode() for name in names if "/vendor/" in name and name.endswith(".license")]
    needed = {"GPL-3.0-or-later"}
    for mark in marks:
        needed.update(mark.rpartition("-Identifier: ")[2].strip().split(" AND "))
    assert len(needed) > 1 and set(told["License-Expression"].split(" AND ")) == needed
    texts = {pathlib.PurePath(name).name for name in told.get_all("License-File", [])}
    assert texts >= {"LICENSE", "LICENSE-echarts", "LICENSE-d3", "NOTICE-echarts"}


def test_playbook_passes_accelerated_from_the_wheel(from_wheel: Environment, play: Callable[..., Any]) -> None:
    assert_accelerated(play(from_wheel))


def test_command_works_from_the_wheel(from_wheel: Environment) -> None:
    told = from_wheel.ansible("ansible-mitogen-svc", "doctor", ANSIBLE_STRATEGY="ansible_mitogen.svc.linear")
    assert "failed" not in told and "strategy: ansible_mitogen.svc.linear" in told
    assert GALAXY["version"] in from_wheel.ansible("ansible-mitogen-svc", "--version")


def test_galaxy_lists_the_wheels_collection_with_its_version(from_wheel: Environment) -> None:
    listed = json.loads(from_wheel.ansible("ansible-galaxy", "collection", "list", "--format", "json"))
    versions = [found["ansible_mitogen.svc"]["version"] for found in listed.values() if "ansible_mitogen.svc" in found]
    assert versions == [GALAXY["version"]]


def test_wheels_file_list_matches_what_it_installs(from_wheel: Environment) -> None:
    [root] = from_wheel.directory.glob("lib/python*/site-packages/ansible_collections/ansible_mitogen/svc")
    files = json.loads((root / "FILES.json").read_text())["files"]
    listed = {entry["name"] for entry in files if entry["ftype"] == "file"}
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    found = {name for name in found if "__pycache__" not in name}
    assert found == listed | {"FILES.json", "MANIFEST.json"}


def test_doc_shows_every_option_from_the_wheel(from_wheel: Environment) -> None:
    assert_documented(from_wheel)


def test_playbook_passes_accelerated_from_the_galaxy_tarball_alone(
    from_artifact: Environment, play: Callable[..., Any]
) -> None:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('ansible_mitogen_svc') is not None)"
    from_artifact.ansible("python", "-c", code)  # the package is not installed: the tarball brings its own
    assert_accelerated(play(from_artifact))


def test_command_works_from_the_galaxy_tarball_alone(from_artifact: Environment) -> None:
    place = {"PYTHONPATH": f"{from_artifact.collections}/ansible_collections/ansible_mitogen/svc"}
    command = ("python", "-m", "ansible_mitogen_svc.command")
    told = from_artifact.ansible(*command, "doctor", ANSIBLE_STRATEGY="ansible_mitogen.svc.linear", **place)
    assert "failed" not in told and "strategy: ansible_mitogen.svc.linear" in told
    assert from_artifact.ansible(*command, "--version", **place).strip() == GALAXY["version"]


def test_doc_shows_every_option_from_the_galaxy_tarball(from_artifact: Environment) -> None:
    assert_documented(from_artifact)


def test_galaxy_tarball_carries_nothing_but_the_product(artifact: pathlib.Path) -> None:
    with tarfile.open(artifact) as archive:
        tops = {name.partition("/")[0] for name in archive.getnames()}
    product = {"ansible_mitogen_svc", "plugins", "meta", "README.md", "LICENSE", "MANIFEST.json", "FILES.json"}
    assert product <= tops
    assert tops <= product | {"changelogs", "CHANGELOG.rst", "docs"}


def test_galaxy_tarball_has_nothing_that_the_pages_tell_people_to_make(tmp_path: pathlib.Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("plugins", "meta", "ansible_mitogen_svc"):
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("galaxy.yml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, checkout)
    made = ("ansible.cfg", "ansible-timeline.html", "hosts.json", "hosts.yml", "repeats.jsonl", "stats.json", ".venv")
    for name in made:
        (checkout / name).write_text("")
    with tarfile.open(make_artifact(tmp_path, checkout)) as archive:
        found = set(archive.getnames())
    assert "plugins/callback/timeline.py" in found and not found.intersection(made)
