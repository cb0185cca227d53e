# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A real Session with real agents on this machine, and payloads built by the ansible-core that runs the tests."""

from __future__ import annotations

import base64
import functools
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

from ansible_mitogen_svc.controller.connection_plan import ConnectionPlan
from ansible_mitogen_svc.controller.payload import Payload
from ansible_mitogen_svc.controller.session import Session
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services import bootstrap
from ansible_mitogen_svc.services.connection import PREAMBLE_SIZE

BUILDER = pathlib.Path(__file__).resolve().parent.parent / "target" / "payload_builder.py"


def local_plan(key: str) -> ConnectionPlan:
    """A connection to this machine with the Python that runs the tests; each key gets an agent of its own."""
    command = bootstrap.remote_command([sys.executable], PREAMBLE_SIZE.decode(), exact=True)
    return ConnectionPlan(key=key, name=key, argv=(b"/bin/sh", b"-c", b"exec " + command.encode()), timeout=60.0)


@pytest.fixture
def session(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    running = Session(pool_size=8)
    yield running
    running.close()


@pytest.fixture
def connect(session: Session) -> Callable[[str], Target]:
    """Connect to this machine; each key gets an agent of its own."""
    return lambda key: session.connect(local_plan(key), "localhost")


@functools.cache
def _builder() -> object:
    spec = importlib.util.spec_from_file_location("payload_builder", BUILDER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def text_of(module: str) -> bytes:
    """The AnsiballZ that core builds for a module without arguments."""
    return base64.b64decode(_builder().build_all([{"module": module, "args": {}}])[0])  # type: ignore[attr-defined]


@pytest.fixture
def ping(session: Session) -> Payload:
    return session.splitter.split(text_of("ping"))
