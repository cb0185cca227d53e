# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The memory of what module_utils files import: same payloads, fewer files parsed."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

BUILDER = pathlib.Path(__file__).resolve().parent.parent / "target"
ROOT = pathlib.Path(__file__).resolve().parents[3]
MODULES = ("ping", "copy", "setup", "user")
SCRIPT = """
import sys, tempfile, builtins
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import base64, payload_builder
from ansible import constants
from ansible.executor import module_common
from ansible_mitogen_svc.controller.compat import module_build
from ansible_mitogen_svc.controller.payload import PayloadSplitter
constants.DEFAULT_LOCAL_TMP = tempfile.mkdtemp()
parsed = []
def counting(source, name, *rest, **more):
    parsed.append(name)
    return builtins.compile(source, name, *rest, **more)
module_common.compile = counting
if sys.argv[3] == "remember":
    assert module_build.remember_imports() and module_build.remember_imports()
for name in sys.argv[4:]:
    before = len(parsed)
    text = base64.b64decode(payload_builder.build_all([{"module": name, "args": {}}])[0])
    print(name, PayloadSplitter().split(text).manifest.id, len(parsed) - before)
"""


def built(mode: str) -> list[list[str]]:
    command = [sys.executable, "-c", SCRIPT, str(BUILDER), str(ROOT), mode, *MODULES]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return [line.split() for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def runs() -> tuple[list[list[str]], list[list[str]]]:
    return built("plain"), built("remember")


def test_every_module_has_the_same_files_with_the_memory_as_without(
    runs: tuple[list[list[str]], list[list[str]]],
) -> None:
    plain, remembered = runs
    assert [line[:2] for line in remembered] == [line[:2] for line in plain]


def test_a_file_of_module_utils_is_parsed_once_in_a_run(runs: tuple[list[list[str]], list[list[str]]]) -> None:
    plain, remembered = ({name: int(count) for name, _, count in lines} for lines in runs)
    for name in ("copy", "user"):
        assert plain[name] > 20
        assert remembered[name] == 1
