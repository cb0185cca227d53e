# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""An execution environment with the collection: what its definition asks for, the image that comes of it, plays in it.

`ansible-builder build` makes the image with podman, from the rig's own image and the collection's tarball; pip and apt
ask this machine's servers, no container registry is asked. Where there are no containers the tests say so and skip.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from environments import REPOSITORY, Environment
from rig import debian, podman
from rig.errors import RigUnavailable
from rig.hosts import HostPool
from rig.image import ensure_image
from runner_jobs import HOSTS, finish, hosts_of_events, make_project, module_runs, start_pipeline

BUILD_SECONDS = 3000
PIP = "RUN apt-get update -q && apt-get install -yq --no-install-recommends python3-pip python3-venv"
#: The newest ansible-core for the image's Python.
CORES = {(3, 11): "ansible-core==2.19.14", (3, 12): "ansible-core==2.21.5"}
CERTIFICATES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
OURS = {"ANSIBLE_STRATEGY": "ansible_mitogen.svc.linear", "ANSIBLE_MITOGEN_SVC_STATS": "/tmp/statistics.json"}

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 900)


def test_builder_finds_what_the_collection_needs(awx: Environment) -> None:
    told = awx.ansible("ansible-builder", "introspect", "--sanitize", str(awx.collections))
    found = yaml.safe_load(told)
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    # ansible-core is the environment's own matter
    assert without_origin(found["python"]) == [line for line in needed if not line.startswith("ansible-core")]
    system = ["openssh-clients [platform:rpm]", "openssh-client [platform:dpkg]"]
    assert without_origin(found["system"]) == [*system, "sshpass [platform:rpm platform:dpkg]"]


def without_origin(lines: list[str]) -> list[str]:
    """Lines without the comment that says which collection asks for them."""
    assert all(line.endswith("# from collection ansible_mitogen.svc") for line in lines), lines
    return [line.partition("#")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def pool() -> Iterator[HostPool]:
    """Container hosts; their image is the base of ours."""
    try:
        debian.ensure_commands("podman", "runc", "debootstrap", "ssh")
        with HostPool() as made:
            yield made
    except RigUnavailable as reason:
        pytest.skip(f"no containers: {reason}")


def definition(base: str, core: str, artifact: pathlib.Path) -> dict[str, Any]:
    """As a user writes it. Debian's pip is no package that ansible-builder would install by itself."""
    return {
        "version": 3,
        "images": {"base_image": {"name": base}},
        "dependencies": {
            "python_interpreter": {"python_path": "/usr/bin/python3"},
            "ansible_core": {"package_pip": core},
            "ansible_runner": {"package_pip": "ansible-runner"},
            "galaxy": {"collections": [{"name": f"/build/artifacts/{artifact.name}", "type": "file"}]},
        },
        "additional_build_files": [{"src": str(artifact), "dest": "artifacts"}],
        "additional_build_steps": {"prepend_base": PIP},
        "options": {"package_manager_path": "/usr/bin/apt-get", "skip_pip_install": True},
    }


@pytest.fixture(scope="module")
def image(pool: HostPool, awx: Environment, artifact: pathlib.Path, tmp_path_factory: Any) -> Iterator[str]:
    """The built image's name; it is removed afterwards."""
    base = ensure_image()
    told = podman.run("run", "--rm", base, "python3", "-c", "import sys; print(*sys.version_info[:2])")
    python = tuple(map(int, told.split()))
    if python < min(CORES):
        pytest.skip(f"this machine's distribution has Python {python}, too old for ansible-core 2.19")
    context = tmp_path_factory.mktemp("image")
    core = CORES[max(known for known in CORES if known <= python)]
    (context / "execution-environment.yml").write_text(yaml.safe_dump(definition(base, core, artifact)))
    name = f"localhost/svc-rig-ee:{os.getpid()}"
    options = ["--network=host", "--layers=false", "--pull=never"]
    if CERTIFICATES.exists():
        options.append(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro")  # pip's servers are those this machine trusts
    awx.ansible(
        *("ansible-builder", "build", "--container-runtime", "podman", "--tag", name, "--verbosity", "3"),
        *("--file", str(context / "execution-environment.yml"), "--context", str(context / "context")),
        *("--extra-build-cli-args", shlex.join(options)),
        seconds=BUILD_SECONDS,
        **{"CONTAINERS_CONF": podman.environment()["CONTAINERS_CONF"], **debian.proxy_environment()},
    )
    try:
        yield name
    finally:
        podman.run("rmi", "--force", name, check=False)


def in_image(image: str, script: str, *options: str) -> str:
    """Run a shell script in a new container, with what the image starts by itself; returns its stdout."""
    passed = [f"--env={name}={value}" for name, value in OURS.items()]
    return podman.run("run", "--rm", "--network=host", *passed, *options, image, "sh", "-ec", script, timeout=600)


def test_image_has_what_the_collection_asked_for(image: str) -> None:
    version = "python3 -c 'import mitogen; print(mitogen.__version__)'"
    told = in_image(image, f"command -v ssh; command -v sshpass; {version}")
    ssh, sshpass, mitogen = told.splitlines()
    assert ssh.endswith("/ssh") and sshpass.endswith("/sshpass")
    assert tuple(map(int, mitogen.strip("()").replace(",", ".").split("."))) >= (0, 3, 54)


def test_playbook_passes_accelerated_in_the_image_here_and_over_ssh(
    image: str, pool: HostPool, tmp_path: pathlib.Path
) -> None:
    with pool.host() as host:
        options = "-F none -o UserKnownHostsFile=/job/known_hosts"
        reached = f"ansible_host={host.address} ansible_port={host.port} ansible_user=root"
        key = f"ansible_ssh_private_key_file=/tmp/key ansible_ssh_common_args='{options}'"
        (tmp_path / "hosts").write_text(f"here ansible_connection=local\nthere {reached} {key}\n")
        playbook = REPOSITORY / "tests/packaging/playbook.yml"
        told = in_image(
            image,
            "cp /job/id_ed25519 /tmp/key && chmod 600 /tmp/key\n"  # ssh wants a key of its user's own
            "ansible-playbook -i /job/hosts -e work=/tmp/work /job/playbook.yml >&2\n"
            "cat /tmp/statistics.json",
            share(tmp_path / "job", "/job", pool.private_key, pool.known_hosts, tmp_path / "hosts", playbook),
        )
    runs = json.loads(told)["module_runs"]
    # on each host setup, ping, file, stat and copy, command, two lineinfile, shell
    assert runs["core"] == {} and sum(runs["zygote"].values()) >= 16, runs


def test_a_slice_runs_in_the_image_between_transmit_and_process(
    image: str, awx: Environment, tmp_path: pathlib.Path
) -> None:
    variables = {"ANSIBLE_MITOGEN_SVC_STATS": "/left/statistics.json"}
    project = make_project(tmp_path / "private", HOSTS[0::2], variables)
    left = share(tmp_path / "left", "/left")
    (tmp_path / "left").chmod(0o777)
    configuration = f"CONTAINERS_CONF={podman.environment()['CONTAINERS_CONF']}"
    worker = f"{configuration} podman run --rm --interactive {left} {image} ansible-runner worker"
    told = finish(start_pipeline(project, worker, tmp_path / "received", awx))
    assert told.count("ok=2") == 2
    assert hosts_of_events(tmp_path / "received") == sorted(HOSTS[0::2] * 2)
    assert module_runs(tmp_path / "left") == {"zygote": {"zygote": 4}, "cold": {}, "core": {}}


def share(directory: pathlib.Path, place: str, *files: pathlib.Path) -> str:
    """Podman's option that shows copies of files at place, readable for the image's user; they end with the test."""
    directory.mkdir()
    directory.chmod(0o755)
    for file in files:
        shutil.copyfile(file, directory / file.name)
        (directory / file.name).chmod(0o644)
    return f"--volume={directory}:{place}"
