# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs ansible-playbook in a place of its own and hands back everything that can be asserted about the run.

A `Runner` is made by a fixture; `Runner.run` may be called from several threads, each call has a directory of its own
that serves as HOME, TMPDIR and ANSIBLE_HOME, so that runs share nothing and what they leave behind can be listed.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ansible_mitogen_svc.comparison.recording import RECORDER, RECORDER_NAME, RESULTS_VARIABLE
from rig import podman

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
INTEGRATION = REPOSITORY / 'tests/integration'
RUN_SECONDS = int(os.environ.get('RIG_RUN_SECONDS', 600))


# The suite under another strategy, on both sides, and with other workers on ours: see tests/README.md.
STRATEGIES = ('linear', 'free', 'host_pinned', 'debug')
STRATEGY = os.environ.get('SVC_TEST_STRATEGY', 'linear')
WORKERS = os.environ.get('SVC_TEST_WORKERS', 'auto')
if STRATEGY not in (*STRATEGIES, 'core') or WORKERS not in ('auto', 'fork'):
    raise ValueError(f'SVC_TEST_STRATEGY is one of {STRATEGIES} or core, SVC_TEST_WORKERS auto or fork')


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one side of a comparison runs under: the strategy and further environment variables."""

    name: str
    strategy: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


# Pipelining only makes core quicker here; that its results do not depend on it is core's promise.
CORE = Setting('core', 'ansible.builtin.linear', {'ANSIBLE_PIPELINING': 'true'})
OURS = Setting('svc', 'ansible_mitogen.svc.linear', {'ANSIBLE_MITOGEN_SVC_TASK_WORKERS': WORKERS})
if STRATEGY == 'core':
    # core against itself: shows that what is called volatile is, and no more
    OURS = dataclasses.replace(CORE, name='svc')
else:
    CORE = dataclasses.replace(CORE, strategy=f'ansible.builtin.{STRATEGY}')
    OURS = dataclasses.replace(OURS, strategy=f'ansible_mitogen.svc.{STRATEGY}')


@dataclasses.dataclass(frozen=True)
class LocalProcess:
    """A process of a run on this machine: ``command`` as ``ps`` shows it."""

    pid: int
    command: str


@dataclasses.dataclass(frozen=True)
class PlaybookRun:
    """A finished run. ``results``: the callback's records in order; ``statistics``: the strategy's JSON, if it wrote
    one; ``leftovers``: paths below the run's TMPDIR and ~/.ansible/tmp that outlived it; ``elapsed``: seconds."""

    returncode: int
    stdout: str
    stderr: str
    results: list[dict[str, Any]]
    statistics: dict[str, Any]
    leftovers: list[str]
    elapsed: float

    def of_task(self, task: str, host: str | None = None) -> list[dict[str, Any]]:
        """Final results (not starts, retries or polls) of the tasks with this name."""
        final = ('ok', 'failed', 'skipped', 'unreachable')
        return [record for record in self.results
                if record['task'] == task and record['event'] in final and host in (None, record['host'])]

    def tail(self, length: int = 6000) -> str:
        """The end of both outputs, for assertion messages."""
        return f'rc {self.returncode}\n--- stdout\n{self.stdout[-length:]}\n--- stderr\n{self.stderr[-length:]}'


class LivePlaybook:
    """A run in progress: ``process`` is ansible-playbook, the leader of its own process group; ``home`` its place."""

    def __init__(self, process: subprocess.Popen[bytes], home: pathlib.Path) -> None:
        self.process = process
        self.home = home
        self._begun = time.monotonic()

    def wait_for_output(self, text: str, seconds: float = 60) -> None:
        """Block until stdout contains ``text``; raises TimeoutError with what there is."""
        deadline = time.monotonic() + seconds
        while text not in self._read('stdout'):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f'{text!r} did not appear: {self._read("stdout")}\n{self._read("stderr")}')
            time.sleep(0.05)

    def finish(self, seconds: float = RUN_SECONDS) -> PlaybookRun:
        """Wait for the end (SIGKILL to the group after ``seconds``) and collect."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        lines = self._read('results').splitlines()
        statistics = self._read('statistics')
        return PlaybookRun(
            returncode=self.process.returncode, stdout=self._read('stdout'), stderr=self._read('stderr'),
            results=[json.loads(line) for line in lines if line.endswith('}')],
            statistics=json.loads(statistics) if statistics else {},
            leftovers=self._leftovers(), elapsed=time.monotonic() - self._begun)

    def processes(self) -> list[LocalProcess]:
        """What this run has started and still runs, in whatever session or group, without the ssh masters of
        ControlPersist: those stay for a minute under core as well. Found by the run's HOME in the environment."""
        mark = f'{RESULTS_VARIABLE}={self.home}/results'.encode()
        found = []
        for path in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                if mark in (path / 'environ').read_bytes().split(b'\0'):
                    command = (path / 'cmdline').read_bytes().replace(b'\0', b' ').decode(errors='replace').strip()
                    found.append(LocalProcess(int(path.name), command))
            except OSError:
                continue
        return [process for process in found if process.command and '[mux]' not in process.command]

    def kill_all(self) -> None:
        """SIGKILL to whatever of the process group still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _read(self, name: str) -> str:
        path = self.home / name
        return path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''

    def _leftovers(self) -> list[str]:
        found: list[str] = []
        for place in (self.home / 'tmp', self.home / '.ansible/tmp'):
            found += [str(path.relative_to(self.home)) for path in place.rglob('*')]
        return sorted(found)


class Runner:
    """Starts ansible-playbook of the environment the tests run in, with the checkout's package and collection."""

    def __init__(self, private_key: pathlib.Path, known_hosts: pathlib.Path) -> None:
        self._private_key = private_key
        self._known_hosts = known_hosts
        # short: ssh's control sockets live below it and have to fit 108 bytes
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='svc-run-'))
        self._collections = self.directory / 'collections'
        namespace = self._collections / 'ansible_collections/ansible_mitogen'
        namespace.mkdir(parents=True)
        (namespace / 'svc').symlink_to(REPOSITORY)

    def close(self) -> None:
        """Remove the directories of all runs."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, playbook: pathlib.Path, hosts: Mapping[str, Mapping[str, Any]], setting: Setting,
            arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None,
            prepare: str = '', seconds: float = RUN_SECONDS) -> PlaybookRun:
        """Run ``playbook`` to its end; see `live` for the arguments."""
        with self.live(playbook, hosts, setting, arguments, environment, prepare) as live:
            return live.finish(seconds)

    def program(self, name: str, hosts: Mapping[str, Mapping[str, Any]], setting: Setting, arguments: Sequence[str],
                stdin: str = '', environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run another program of ansible-core's (``ansible``, ``ansible-console``, ``ansible-pull``) to its end.

        {run} in ``arguments`` stands for the directory of the run, which is the working directory, too.
        """
        command, home, filled = self.command(name, hosts, setting, arguments, environment)
        return subprocess.run(command, cwd=home, input=stdin, capture_output=True, text=True, timeout=RUN_SECONDS,
                              env=filled)

    def command(self, name: str, hosts: Mapping[str, Mapping[str, Any]], setting: Setting, arguments: Sequence[str],
                environment: Mapping[str, str] | None = None) -> tuple[list[str], pathlib.Path, dict[str, str]]:
        """What `program` starts: the command, its working directory and its environment."""
        home = self.place(hosts, setting)
        command = [str(pathlib.Path(sys.executable).with_name(name)), '-i', str(home / 'inventory.yml'),
                   *(argument.replace('{run}', str(home)) for argument in arguments)]
        return command, home, self.environment(home, setting, environment or {})

    def place(self, hosts: Mapping[str, Mapping[str, Any]], setting: Setting) -> pathlib.Path:
        """A directory for one run, with the inventory as ``inventory.yml``."""
        home = pathlib.Path(tempfile.mkdtemp(prefix=f'{setting.name}-', dir=self.directory))
        (home / 'tmp').mkdir()
        (home / 'inventory.yml').write_text(yaml.safe_dump(self.inventory(hosts)))
        return home

    @contextlib.contextmanager
    def live(self, playbook: pathlib.Path, hosts: Mapping[str, Mapping[str, Any]], setting: Setting,
             arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None,
             prepare: str = '') -> Iterator[LivePlaybook]:
        """Start ``playbook`` on ``hosts`` (inventory name -> variables); the block ends with everything killed.

        In values of ``environment``, and in ``prepare``, a shell command to run first in the playbook's directory,
        {playbook}, {run} and {collections} stand for the directories of these. The variable ``rig_linear`` names the
        linear strategy of the same side, for plays that another one refuses.
        """
        home = self.place(hosts, setting)
        command = [str(pathlib.Path(sys.executable).with_name('ansible-playbook')), '-i', str(home / 'inventory.yml'),
                   '-e', f'rig_linear={setting.strategy.rpartition(".")[0]}.linear', *arguments, playbook.name]
        places = {'playbook': playbook.parent, 'run': home, 'collections': self._collections}
        filled = {name: value.format_map(places) for name, value in (environment or {}).items()}
        if prepare:
            subprocess.run(prepare.format_map(places), shell=True, check=True, cwd=playbook.parent, timeout=60)
        with open(home / 'stdout', 'wb') as stdout, open(home / 'stderr', 'wb') as stderr:
            process = subprocess.Popen(command, cwd=playbook.parent, stdin=subprocess.DEVNULL, stdout=stdout,
                                       stderr=stderr, env=self.environment(home, setting, filled),
                                       start_new_session=True)
        live = LivePlaybook(process, home)
        try:
            yield live
        finally:
            live.kill_all()

    def inventory(self, hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The inventory with ``hosts``, and what they have in common."""
        known = f'-o UserKnownHostsFile={self._known_hosts} -o StrictHostKeyChecking=yes'
        common = {
            'ansible_python_interpreter': '/usr/bin/python3',
            'ansible_ssh_private_key_file': str(self._private_key),
            'ansible_ssh_common_args': f'-F none {known}',
        }
        return {'all': {'vars': common, 'hosts': {name: dict(variables) for name, variables in hosts.items()}}}

    def environment(self, home: pathlib.Path, setting: Setting, extra: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a program that runs in `home`, a directory of `place`'s."""
        # What coverage.py leaves for processes begins with its name.
        kept = ('ANSIBLE_MITOGEN_SVC_', 'COVERAGE_')
        passed = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        return {
            'PATH': f"{pathlib.Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            'HOME': str(home), 'TMPDIR': str(home / 'tmp'), 'LANG': 'C.UTF-8', 'USER': os.environ.get('USER', 'root'),
            'PYTHONPATH': str(REPOSITORY),
            'ANSIBLE_HOME': str(home / '.ansible'),
            'ANSIBLE_CONFIG': str(INTEGRATION / 'ansible.cfg'),
            'ANSIBLE_COLLECTIONS_PATH': str(self._collections),
            'ANSIBLE_CALLBACK_PLUGINS': str(RECORDER),
            'ANSIBLE_CALLBACKS_ENABLED': RECORDER_NAME,
            'ANSIBLE_STRATEGY': setting.strategy,
            'ANSIBLE_MITOGEN_SVC_STATS': str(home / 'statistics'),
            'CONTAINERS_CONF': podman.environment()['CONTAINERS_CONF'],
            RESULTS_VARIABLE: str(home / 'results'),
            **passed, **setting.environment, **extra,
        }
