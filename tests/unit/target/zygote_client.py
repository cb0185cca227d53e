# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Drives a real zygote process over pipes, as the agent does; used by the tests and by bench/zygote_latency.py."""
from __future__ import annotations

import ast
import base64
import dataclasses
import glob
import hashlib
import io
import json
import os
import pathlib
import select
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_mitogen_svc.wire import frames

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
BOOT = 'import sys; sys.path.insert(0, {checkout!r}); from ansible_mitogen_svc.target import zygote; ' \
       'sys.path.remove({checkout!r}); {prelude}; zygote.main(0, 1, {store!r})'


def find_python(version: str) -> str | None:
    """Return an interpreter of a minor version: from PATH, or from where pyenv keeps them."""
    found = shutil.which(f'python{version}')
    if found and '/shims/' not in found:
        return found
    root = os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))
    for path in sorted(glob.glob(f'{root}/versions/{version}.*/bin/python')):
        return path
    return None


def find_core(series: str) -> str | None:
    """Return an interpreter that has ansible-core of a series: this one, or one named in SVC_TEST_CORES."""
    for python in [sys.executable, *os.environ.get('SVC_TEST_CORES', '').split(os.pathsep)]:
        if python:
            done = subprocess.run([python, '-c', 'import ansible.release as r; print(r.__version__)'],
                                  capture_output=True, text=True, timeout=60)
            if done.returncode == 0 and done.stdout.startswith(series + '.'):
                return python
    return None


@dataclasses.dataclass(frozen=True)
class Module:
    """A module as core built it: the text a cold run gets, and its parts for a zygote."""

    text: bytes
    manifest: str
    manifest_text: bytes
    files: Mapping[str, bytes]
    header: Mapping[str, Any]
    parameters: bytes

    def with_files(self, changes: Mapping[str, bytes]) -> Module:
        """The same job with some files replaced or added."""
        listing = json.loads(self.manifest_text)
        files = dict(self.files)
        for path, data in changes.items():
            digest = hashlib.sha256(data).hexdigest()
            listing[path] = digest
            files[digest] = data
        manifest, text = frames.pack_manifest(listing)
        return dataclasses.replace(self, manifest=manifest, manifest_text=text, files=files)


def build(core: str, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Module]:
    """Have the core of an interpreter build modules."""
    stdin = json.dumps([{'module': module, 'args': dict(args)} for module, args in requests])
    environment = {**os.environ, 'ANSIBLE_LOCALHOST_WARNING': '0'}
    for name in ('PYTHONPATH', 'ANSIBLE_CONFIG'):
        environment.pop(name, None)
    done = subprocess.run([core, os.path.join(os.path.dirname(__file__), 'payload_builder.py')], input=stdin,
                          stdout=subprocess.PIPE, text=True, timeout=120, check=True, env=environment)
    return [split(base64.b64decode(text)) for text in json.loads(done.stdout)]


def split(text: bytes) -> Module:
    """Take an AnsiballZ apart: the keyword arguments at its end, and the files of its zip."""
    call = ast.parse(text).body[-1].body[-1].value  # type: ignore[attr-defined]
    literals = {}
    for keyword in call.keywords:
        try:
            literals[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            # Core 2.22's `secrets`, a frozenset, goes as the controller sends it; a date and time do not go.
            given = keyword.value.args if keyword.arg == 'secrets' else ()
            literals[keyword.arg] = {'frozenset': sorted(ast.literal_eval(given[0]) if given else ())}
    listing: dict[str, str] = {}
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(literals.pop('zip_data')))) as archive:
        for path in archive.namelist():
            data = archive.read(path)
            listing[path] = hashlib.sha256(data).hexdigest()
            files[listing[path]] = data
    manifest, manifest_text = frames.pack_manifest(listing)
    for name in ('date_time', 'ansible_module'):
        literals.pop(name)
    parameters = literals.pop('params').encode()
    header = {'op': 'run', 'manifest': manifest, 'module': literals.pop('module_fqn'),
              'rlimit_nofile': literals.pop('rlimit_nofile'), 'arguments': literals}
    return Module(text, manifest, manifest_text, files, header, parameters)


@dataclasses.dataclass(frozen=True)
class Reply:
    """A zygote's reply, and when it arrived (time.monotonic)."""

    header: Mapping[str, Any]
    blobs: Sequence[bytes]
    arrived: float

    @property
    def outcome(self) -> tuple[int, bytes, bytes]:
        """(rc, stdout, stderr) of a job."""
        assert 'rc' in self.header, self.header
        return self.header['rc'], self.blobs[0], self.blobs[1]


def plain_environment() -> dict[str, str]:
    """Return the environment without what changes a Python at its start."""
    return {name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'PYTEST'))}


class ZygoteProcess:
    """One zygote and the agent's side of its pipes. `library` answers its questions."""

    def __init__(self, python: str, store: str | None, environment: Mapping[str, str] | None = None,
                 cwd: str | None = None, prelude: str = 'pass') -> None:
        self.library: dict[str, bytes] = {}
        self.questions: list[list[str]] = []
        boot = BOOT.format(checkout=str(CHECKOUT), store=store, prelude=prelude)
        env = {**plain_environment(), **(environment or {})}
        self.process = subprocess.Popen([python, '-c', boot], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, bufsize=0, env=env, cwd=cwd)
        self._parser = frames.FrameParser()
        self._replies: dict[int, Reply] = {}
        self._calls = 0
        self.python = python
        self.notices: list[Reply] = []
        self.hello = self._next_notice().header

    def __enter__(self) -> ZygoteProcess:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> int:
        """End its input and wait; return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()

    def offer(self, module: Module) -> None:
        """Have questions for this module answered."""
        self.library.update(module.files)
        self.library[module.manifest] = module.manifest_text

    def install(self, module: Module, only: Sequence[str] | None = None) -> None:
        """Push a module's files (a cast)."""
        files = {digest: data for digest, data in module.files.items() if only is None or digest in only}
        self.send(0, {'op': 'install', 'manifest': module.manifest, 'sha256': list(files)},
                  [module.manifest_text, *files.values()])

    def send(self, call_id: int, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        assert self.process.stdin is not None
        data = memoryview(frames.pack_frame(call_id, frames.pack_payload(header, blobs)))
        try:
            while data:
                data = data[self.process.stdin.write(data):]
        except BrokenPipeError:
            raise EOFError(self._last_words()) from None

    def start(self, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> int:
        """Send a call; return its id for `wait`."""
        self._calls += 1
        self.send(self._calls, header, blobs)
        return self._calls

    def start_module(self, module: Module, **more: Any) -> int:
        return self.start(dict(module.header, manifest=module.manifest, **more), [module.parameters])

    def wait(self, call_id: int, timeout: float = 60) -> Reply:
        deadline = time.monotonic() + timeout
        while call_id not in self._replies:
            self._receive(deadline)
        return self._replies.pop(call_id)

    def call(self, header: Mapping[str, Any], blobs: Sequence[bytes] = (), timeout: float = 60) -> Reply:
        return self.wait(self.start(header, blobs), timeout)

    def run(self, module: Module, timeout: float = 60, **more: Any) -> Reply:
        return self.wait(self.start_module(module, **more), timeout)

    def statistics(self) -> Mapping[str, Any]:
        return self.call({'op': 'ping'}).header

    def _next_notice(self) -> Reply:
        deadline = time.monotonic() + 20
        while not self.notices:
            self._receive(deadline)
        return self.notices.pop(0)

    def error_notice(self) -> Mapping[str, Any]:
        """Wait for a frame that answers no call."""
        return self._next_notice().header

    def _last_words(self) -> str:
        assert self.process.stderr is not None
        status = self.process.wait(5)
        return f'the zygote ended with {status}: {self.process.stderr.read().decode()}'

    def _receive(self, deadline: float) -> None:
        assert self.process.stdout is not None and self.process.stderr is not None
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
            raise TimeoutError('the zygote did not answer')
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        if not data:
            raise EOFError(self._last_words())
        for call_id, payload in self._parser.feed(data):
            header, blobs = frames.unpack_payload(payload)
            reply = Reply(header, blobs, time.monotonic())
            if call_id >= frames.QUESTION:
                self.questions.append(header['sha256'])
                found = {digest: self.library[digest] for digest in header['sha256'] if digest in self.library}
                self.send(call_id, {'op': 'files', 'sha256': list(found)}, list(found.values()))
            elif call_id:
                self._replies[call_id] = reply
            else:
                self.notices.append(reply)


def run_cold(python: str, module: Module, cwd: str | None = None,
             environment: Mapping[str, str] | None = None, below_shell: bool = False) -> tuple[int, bytes, bytes]:
    """Run the whole AnsiballZ text as core does with pipelining: on the standard input of a new Python.

    `below_shell`: with core's shell around it, which leads the session and the process group.
    """
    argv = ['/bin/sh', '-c', f'{shlex.quote(python)} && sleep 0'] if below_shell else [python]
    done = subprocess.run(argv, input=module.text, capture_output=True, cwd=cwd, timeout=120,
                          env={**plain_environment(), **(environment or {})}, start_new_session=True)
    return done.returncode, done.stdout, done.stderr
