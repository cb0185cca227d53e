# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A module finds what a Python finds that starts when it does, and nothing that was found out before."""
from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from zygote_client import Module, ZygoteProcess, run_cold

Build = Callable[..., Module]
pytestmark = pytest.mark.timeout(300)


def result_of(outcome: tuple[int, bytes, bytes]) -> Mapping[str, Any]:
    assert outcome[0] == 0, outcome
    found: Mapping[str, Any] = json.loads(outcome[1])
    return found


def test_packages_of_a_user_who_had_none_are_found_and_what_pth_files_name(
        pair: tuple[str, str], build: Build, tmp_path: pathlib.Path) -> None:
    module = build(pair[1], 'svc_looks_around')
    # Not a virtual environment's: there are no packages of a user there.
    python = str(pathlib.Path(pair[0]).resolve())
    version = '.'.join(pathlib.Path(python).name.removeprefix('python').split('.')[:2])
    environment = {'HOME': str(tmp_path)}
    packages = tmp_path / '.local' / 'lib' / f'python{version}' / 'site-packages'
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'svc_behind_pth.py').touch()

    def install_for_user() -> None:
        packages.mkdir(parents=True)
        (packages / 'svc_late.py').touch()

    seen = []
    with ZygoteProcess(python, str(tmp_path / 'store'), environment) as zygote:
        zygote.install(module)
        for change in (lambda: None, install_for_user, lambda: (packages / 'late.pth').write_text(f'{elsewhere}\n')):
            change()
            seen.append(result_of(zygote.run(module).outcome))
            cold = result_of(run_cold(python, module, environment=environment))
            assert seen[-1] == cold
    assert [len(each['found']) for each in seen] == [0, 1, 2]


def test_the_name_of_the_host_is_asked_for_by_each_module(
        pair: tuple[str, str], build: Build, zygote: ZygoteProcess) -> None:
    imports, knows = build(pair[1], 'svc_looks_around'), build(pair[1], 'svc_knows_host')
    for module in (knows, imports):
        zygote.install(module)
        for _ in range(3):
            result_of(zygote.run(module).outcome)
    assert result_of(zygote.run(knows).outcome)['known'] == 'None'
