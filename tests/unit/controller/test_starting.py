# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a run does before its first task, and a target before its agent answers: once, and no more than is needed."""

from __future__ import annotations

import os
import pathlib
import re
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

import mitogen
import mitogen.parent
import pytest

from ansible_mitogen_svc.controller import walk_store
from ansible_mitogen_svc.controller.walk_store import WalkStore
from ansible_mitogen_svc.services import bootstrap


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[WalkStore]:
    store = WalkStore(str(tmp_path / "cache"))
    bootstrap.keep_in(store)
    bootstrap._compressed_sections.cache_clear()
    yield store
    bootstrap.keep_in(None)
    bootstrap._compressed_sections.cache_clear()


def test_what_every_connection_sends_is_made_once_for_all_runs(store: WalkStore, monkeypatch) -> None:
    first = bootstrap._compressed_sections()
    bootstrap._compressed_sections.cache_clear()

    def made_again() -> str:
        raise AssertionError("mitogen's core was minified again")

    monkeypatch.setattr(mitogen.parent, "_get_core_source", made_again)
    assert bootstrap._compressed_sections() == first
    assert b"mitogen.core" in zlib.decompress(first).split(b"\0")


def test_a_damaged_or_outdated_copy_of_it_is_not_sent(store: WalkStore, tmp_path: pathlib.Path, monkeypatch) -> None:
    first = bootstrap._compressed_sections()
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    bootstrap._compressed_sections.cache_clear()
    assert bootstrap._compressed_sections() == first
    monkeypatch.setattr(mitogen, "__version__", (9, 9, 9))
    bootstrap._compressed_sections.cache_clear()
    bootstrap._compressed_sections()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_files_of_others_in_the_directory_of_the_cache_stay_and_so_does_its_mode(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "project"
    place.mkdir()
    place.chmod(0o755)
    old = time.time() - 10 * walk_store.AGE
    for name in ("hosts.yml", ".hidden", "a" * 63, "start-" + "b" * 64 + ".txt"):
        (place / name).write_bytes(bytes(walk_store.LIMIT // 3))
        os.utime(place / name, (old, old))
    for name in ("c" * 64, "start-" + "d" * 64, ".start-cccccccccc.12.00ff00ff"):
        (place / name).write_text("a record of long ago")
        os.utime(place / name, (old, old))
    WalkStore(str(place)).put("e" * 64, b"a new one")
    left = {path.name for path in place.iterdir()}
    assert left == {"hosts.yml", ".hidden", "a" * 63, "start-" + "b" * 64 + ".txt", "e" * 64}
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_an_agent_comes_up_without_modules_that_nobody_uses() -> None:
    settings = {
        "parent_ids": [0], "context_id": 1, "debug": False, "profiling": False, "unidirectional": True,
        "log_levels": (30, 30, 30), "import_blocks": [], "import_overrides": [], "max_message_size": 1 << 20,
        "version": mitogen.__version__,
    }  # fmt: skip
    preamble = bootstrap._compressed_sections() + repr(settings).encode()
    command = bootstrap.remote_command([f"{sys.executable} -X importtime"], str(len(preamble)), exact=True)
    agent = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert agent.stdin and agent.stdout and agent.stderr
    agent.stdin.write(preamble)
    agent.stdin.flush()
    assert agent.stdout.readline() == b"MITO002\n"
    _, errors = agent.communicate(timeout=60)  # closes its input, which ends it
    # What the environment's .pth files import is not ours.
    bare = subprocess.run([sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, timeout=60).stderr
    imported = _imports_in(errors) - _imports_in(bare)
    assert "ansible_mitogen_svc.target.agent" in imported
    assert {"importlib.abc", "importlib.resources", "pstats", "profile"}.isdisjoint(imported), errors.decode()


def _imports_in(times: bytes) -> set[str]:
    return set(re.findall(r"\| +(\S+)$", times.decode(), re.MULTILINE))


def test_importing_us_sets_off_no_collection_and_collections_go_on_afterwards() -> None:
    script = (
        "import gc; import ansible.cli, ansible.plugins.strategy.linear\n"
        "runs = []; gc.callbacks.append(lambda phase, info: runs.append(phase))\n"
        "import ansible_mitogen_svc.controller.loading\n"
        "print(len(runs), gc.isenabled(), gc.get_freeze_count() > 10000)"
    )
    root = pathlib.Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[-2:] == ["True", "True"], done.stderr
    # The module's own first lines may set off one.
    assert int(done.stdout.split()[0]) <= 2, done.stdout
