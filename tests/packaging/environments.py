# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Empty virtual environments for the packaging tests, one per ansible-core release, and what is installed into them.

Called by the tests beside it in the pytest process. pip's cache is shared, so a release is downloaded once.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Release:
    """An ansible-core release (a pip version specifier) and the Python it is tried under."""

    name: str
    specifier: str
    python: str

    def __str__(self) -> str:
        return self.name


RELEASES = (
    Release("2.19", "==2.19.14", "3.11"),
    Release("2.20", "==2.20.*", "3.12"),
    Release("2.21", "==2.21.5", "3.13"),
    Release("2.22rc", "==2.22.0rc1", "3.13"),
)


@functools.cache
def find_interpreter(version: str) -> str | None:
    """A Python of this minor version that makes virtual environments: on PATH, or among pyenv's versions."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        candidates += map(str, pathlib.Path(root, "versions").glob(f"{version}.*/bin/python"))
    for candidate in candidates:
        # pyenv's shims are on PATH for versions that are not selected, and fail.
        if candidate and subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return candidate
    return None


def run(command: list[str], seconds: float = COMMAND_SECONDS, **keywords: object) -> str:
    """Run a command and return its standard output; the error of a failed one shows both of its outputs."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, **keywords
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def make_wheel(directory: pathlib.Path) -> pathlib.Path:
    """Build the project's wheel into directory."""
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(directory), str(REPOSITORY)])
    return next(directory.glob("*.whl"))


def make_artifact(directory: pathlib.Path, checkout: pathlib.Path = REPOSITORY) -> pathlib.Path:
    """Build the tarball for ansible-galaxy into directory."""
    galaxy = pathlib.Path(sys.executable).with_name("ansible-galaxy")
    run([str(galaxy), "collection", "build", "--output-path", str(directory), str(checkout)])
    return next(directory.glob("*.tar.gz"))


class Environment:
    """A virtual environment below directory with the given requirements."""

    def __init__(self, directory: pathlib.Path, interpreter: str, requirements: list[str]) -> None:
        self.directory = directory
        self.collections: pathlib.Path | None = None
        run([interpreter, "-m", "venv", str(directory)])
        self.install(*requirements)

    def program(self, name: str) -> str:
        return str(self.directory / "bin" / name)

    def install(self, *requirements: str) -> None:
        """What `pip install` takes: requirements, wheels, ``-r`` and a file."""
        run([self.program("python"), "-m", "pip", "install", "--quiet", *requirements])

    def install_artifact(self, artifact: pathlib.Path) -> None:
        """Install a collection tarball where only this environment's commands look, then what it says it requires."""
        self.collections = self.directory / "collections"
        target = ["-p", str(self.collections)]
        run([self.program("ansible-galaxy"), "collection", "install", "--offline", "--force", *target, str(artifact)])
        self.install("-r", str(self.collections / "ansible_collections/ansible_mitogen/svc/meta/ee-requirements.txt"))

    def ansible(self, program: str, *arguments: str, seconds: float = COMMAND_SECONDS, **variables: str) -> str:
        """Run one of ansible's commands in the environment's directory; nothing of the caller's settings is seen."""
        passed = {name: os.environ[name] for name in ("PATH", "USER", "LOGNAME") if name in os.environ}
        environment = {**passed, "HOME": str(self.directory), "LC_ALL": "C.UTF-8", "NO_COLOR": "1", **variables}
        if self.collections:
            environment["ANSIBLE_COLLECTIONS_PATH"] = str(self.collections)
        return run([self.program(program), *arguments], seconds, cwd=self.directory, env=environment)
