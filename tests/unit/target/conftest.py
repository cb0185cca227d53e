# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Interpreters and payloads for the tests of the zygote.

SVC_TEST_CORES lists further Pythons with ansible-core (separated like PATH), beside the one that runs the tests.
"""
from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import zygote_client
from modules_for_tests import MODULES

COMBINATIONS = [('3.8', '2.19'), ('3.9', None), ('3.11', None), ('3.13', None)]


@functools.lru_cache(None)
def core_of(series: str | None) -> str | None:
    return sys.executable if series is None else zygote_client.find_core(series)


@functools.lru_cache(None)
def interpreter(version: str) -> str | None:
    return zygote_client.find_python(version)


@pytest.fixture(scope='session', params=COMBINATIONS, ids=lambda pair: f'python{pair[0]}-core{pair[1] or "here"}')
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(target's interpreter, interpreter with the ansible-core that builds)."""
    version, series = request.param
    python, core = interpreter(version), core_of(series)
    if python is None:
        pytest.skip(f'there is no python{version} here')
    if core is None:
        pytest.skip(f'no ansible-core {series} here; name a Python that has it in SVC_TEST_CORES')
    return python, core


@pytest.fixture(scope='session')
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., zygote_client.Module]:
    """Build a module by name (of core, or of MODULES) with arguments; each distinct one once per session."""
    library = tmp_path_factory.mktemp('library')
    for name, source in MODULES.items():
        (library / f'{name}.py').write_text(source)

    @functools.lru_cache(None)
    def built(core: str, name: str, arguments: tuple[tuple[str, object], ...]) -> zygote_client.Module:
        source = str(library / f'{name}.py') if name in MODULES else name
        return zygote_client.build(core, [(source, dict(arguments))])[0]

    return lambda core, name, **arguments: built(core, name, tuple(arguments.items()))


@pytest.fixture
def zygote(pair: tuple[str, str], tmp_path: pathlib.Path) -> Iterator[zygote_client.ZygoteProcess]:
    """A zygote with a store of its own."""
    with zygote_client.ZygoteProcess(pair[0], str(tmp_path / 'store')) as process:
        yield process


@pytest.fixture(scope='session')
def shared_store(pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store which stays warm for all tests of one interpreter."""
    return str(tmp_path_factory.mktemp('warm') / 'store')


@pytest.fixture
def warm(pair: tuple[str, str], shared_store: str) -> Iterator[zygote_client.ZygoteProcess]:
    """A zygote on the warm store."""
    with zygote_client.ZygoteProcess(pair[0], shared_store) as process:
        yield process
