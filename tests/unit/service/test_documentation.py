# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The example runs, the reference is current, and the table of statements names tests that exist."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import mitogen.core
import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs" / "services"
sys.path.insert(0, str(DOCS / "examples"))

import file_server


def test_the_file_server_example_downloads_what_was_offered(router, connect, tmp_path):
    (tmp_path / "small").write_bytes(b"hello\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes(os.urandom(3 * file_server.CHUNK + 17))
    files = [str(tmp_path / name) for name in ("small", "empty", "large")]
    received = tmp_path / "received"
    received.mkdir()
    assert file_server.serve_and_download(router, connect(), files, str(received)) == [6, 0, 3 * file_server.CHUNK + 17]
    for path in map(Path, files):
        digests = {hashlib.sha256(copy.read_bytes()).digest() for copy in (path, received / path.name)}
        assert len(digests) == 1


def test_the_file_server_example_gives_nothing_that_was_not_offered(router, connect, tmp_path):
    (tmp_path / "private").write_text("private")
    service = file_server.FileServer(router)
    with file_server.Pool(router, [service]):
        service.offer("/somewhere/else", 4711)
        with pytest.raises(mitogen.core.CallError, match="Unauthorized"):
            connect().call(file_server.download, service.name(), [str(tmp_path / "private")], str(tmp_path))


def test_the_file_server_example_runs_as_a_program(tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "out").mkdir()
    program = str(DOCS / "examples/file_server.py")
    command = [sys.executable, program, "local", str(tmp_path / "out"), str(tmp_path / "file")]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (tmp_path / "out" / "file").read_text() == "content"


def test_the_reference_is_what_the_docstrings_say():
    done = subprocess.run(
        [sys.executable, str(DOCS / "build_reference.py"), "--check"], capture_output=True, text=True, timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "\n")


def test_every_statement_of_the_table_names_tests_that_exist():
    table = (DOCS / "statements.md").read_text()
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    named = set(re.findall(r"`(test_\w+)`", table))
    defined = {name for source in sources for name in re.findall(r"def (test_\w+)", source)}
    assert len(named) > 40
    assert named <= defined, sorted(named - defined)
    statements = table.partition("\n## ")[0].splitlines()
    rows = [line for line in statements if line.startswith("| ") and not line.startswith("| statement")]
    assert all(re.search(r"`test_\w+`", row) for row in rows)
