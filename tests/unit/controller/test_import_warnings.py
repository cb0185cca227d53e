# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What plugins say while they are imported, in tasks that share a process and, as under core, in a process per task."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

PLUGIN = """
from ansible.plugins.connection import ConnectionBase
DOCUMENTATION = "{name: any, short_description: any, author: the rig, options: {}}"

class Connection(ConnectionBase):
    transport = "any"
    _connect = exec_command = put_file = fetch_file = close = None
"""
#: Below plugins/ of the collection lab.tools.
FILES = {
    "module_utils/retired.py": """
from ansible.utils.display import Display
Display().deprecated("retired has a successor.", version="9.0")
def used(): pass
""",
    "module_utils/between.py": "from .retired import used\n",
    "connection/direct.py": "from ansible_collections.lab.tools.plugins.module_utils import retired\n" + PLUGIN,
    "connection/indirect.py": "from ..module_utils.between import used\n" + PLUGIN,
    "connection/guarded.py": "try:\n    import none_such\nexcept ImportError:\n    from ..module_utils import retired\n"
    + PLUGIN,
    "connection/later.py": PLUGIN + "\n    def reset(self):\n        from ..module_utils import retired\n",
    "connection/wordy.py": "from ansible.utils.display import Display\nDisplay().warning('so many words')\n" + PLUGIN,
    "connection/outer.py": "from ansible.plugins.loader import connection_loader\n"
    "connection_loader.get('lab.tools.direct', class_only=True)\n"
    "from ansible.utils.display import Display\nDisplay().warning('at last')\n" + PLUGIN,
    "connection/silent.py": PLUGIN,
}
#: Gets the connection plugins named in its arguments, each for a task; prints what each task's result would have.
PROGRAM = """
import json, os, sys
from ansible import context
from ansible.plugins import loader
context.CLIARGS = context.CLIArgs({})
loader.init_plugin_loader()
from ansible._internal._display_utils import DeferredWarningContext
from ansible_mitogen_svc.controller.compat.probe import compatibility

def task(name):
    with DeferredWarningContext(variables={}) as warnings:
        loader.connection_loader.get("lab.tools." + name, class_only=True)
    return [each.event.msg for each in (*warnings.get_warnings(), *warnings.get_deprecation_warnings())]

def in_a_process(name):
    out, into = os.pipe()
    if os.fork() == 0:
        os.write(into, json.dumps(task(name)).encode())
        os._exit(0)
    os.close(into)
    with open(out) as told:
        return json.load(told)

kind, *names = sys.argv[1:]
if kind == "beforehand":
    loader.connection_loader.get("lab.tools.direct", class_only=True)
if kind != "core":
    compatibility().adapter.prepare_core()
told = [task(names.pop(0))] if kind == "forked" else []
run = in_a_process if kind in ("core", "forked") else task
print(json.dumps(told + [run(name) for name in names]))
"""


@pytest.fixture
def collections(tmp_path: pathlib.Path) -> pathlib.Path:
    for place, text in FILES.items():
        file = tmp_path / "ansible_collections/lab/tools/plugins" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def results(collections: pathlib.Path, *words: str) -> Any:
    """What `PROGRAM` printed."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


RETIRED = ["retired has a successor."]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["direct", "direct", "silent", "direct"], [RETIRED, RETIRED, [], RETIRED]),
        (["direct", "indirect", "guarded", "indirect"], [RETIRED] * 4),
        (["indirect", "later", "direct"], [RETIRED, [], RETIRED]),
        (["wordy", "wordy"], [["so many words"]] * 2),
        (["outer", "direct", "outer"], [["at last", *RETIRED], RETIRED, ["at last", *RETIRED]]),
    ],
)
def test_each_task_has_what_its_plugin_said_when_it_was_imported(
    collections: pathlib.Path, names: list[str], expected: list[list[str]]
) -> None:
    assert results(collections, "core", *names) == expected
    assert results(collections, "ours", *names) == expected


def test_a_forked_worker_repeats_what_was_said_before_it_was_forked(collections: pathlib.Path) -> None:
    assert results(collections, "forked", "direct", "direct", "indirect") == [RETIRED] * 3


def test_what_was_said_outside_any_task_is_in_no_tasks_result(collections: pathlib.Path) -> None:
    assert results(collections, "beforehand", "direct", "indirect") == [[], []]
