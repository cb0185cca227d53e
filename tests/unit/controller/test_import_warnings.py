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
    "connection/checked.py": "from typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    from ..module_utils import retired\n" + PLUGIN,
    "connection/derived.py": "from .wordy import Connection\n" + PLUGIN,
    "../../../../filter_plugins/spoken.py": "from ansible.utils.display import Display\nDisplay().warning('at once')\n"
    "class FilterModule:\n    def filters(self):\n        return {'spoken': str}\n",
    "../../../../filter_plugins/broken.py": "import none_such\n",
}
#: Gets the plugins named in its arguments, each for a task; prints what each task's result would have. Names: of a
#: connection plugin, of a |filter, and of a connection plugin that is got !outside any task.
PROGRAM = """
import json, os, sys, threading
from ansible import context
from ansible.plugins import loader
context.CLIARGS = context.CLIArgs({})
loader.init_plugin_loader()
from ansible._internal._display_utils import DeferredWarningContext
from ansible_mitogen_svc.controller.compat.probe import compatibility

def get(name):
    if name.startswith("|"):
        loader.filter_loader.get(name[1:])
    else:
        loader.connection_loader.get("lab.tools." + name, class_only=True)

def task(name):
    if name.startswith("!"):
        return get(name[1:]) or []
    with DeferredWarningContext(variables={}) as warnings:
        get(name)
    return [each.event.msg for each in (*warnings.get_warnings(), *warnings.get_deprecation_warnings())]

def in_a_process(function, *arguments):
    out, into = os.pipe()
    if os.fork() == 0:
        os.write(into, json.dumps(function(*arguments)).encode())
        sys.stderr.flush()
        os._exit(0)
    os.close(into)
    with open(out) as told:
        return json.load(told)

def in_its_process(name):
    return task(name) if name.startswith("!") else in_a_process(task, name)

def at_once(names):
    told, together = {}, threading.Barrier(len(names))
    def run(number, name):
        together.wait()
        told[number] = task(name)
    threads = [threading.Thread(target=run, args=each) for each in enumerate(names)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    return [told[number] for number in range(len(names))]

def run(kind, names):
    if kind != "core":
        compatibility().adapter.prepare_core()
    if kind == "threads":
        sys.setswitchinterval(1e-6)
        return at_once(names)
    told = [task(names.pop(0))] if kind == "forked" else []
    return told + [(task if kind == "ours" else in_its_process)(name) for name in names]

kinds, *names = sys.argv[1:]
print(json.dumps([in_a_process(run, kind, names) for kind in kinds.split()]))
"""


@pytest.fixture
def collections(tmp_path: pathlib.Path) -> pathlib.Path:
    for place, text in FILES.items():
        file = tmp_path / "ansible_collections/lab/tools/plugins" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def results(collections: pathlib.Path, kinds: str, *names: str) -> list[Any]:
    """What `PROGRAM` printed of each of `kinds`."""
    return outcome(collections, kinds, *names)[0]


def outcome(collections: pathlib.Path, *words: str) -> tuple[list[Any], str]:
    """What `PROGRAM` printed, and what was shown meanwhile."""
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_FILTER_PLUGINS": str(collections / "filter_plugins"),
        "ANSIBLE_DEPRECATION_WARNINGS": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


RETIRED = ["retired has a successor."]
WORDS = ["so many words"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["direct", "direct", "silent", "direct"], [RETIRED, RETIRED, [], RETIRED]),
        (["direct", "indirect", "guarded", "indirect"], [RETIRED] * 4),
        (["indirect", "later", "direct"], [RETIRED, [], RETIRED]),
        (["wordy", "wordy"], [WORDS] * 2),
        (["derived", "wordy", "derived"], [WORDS] * 3),
        (["direct", "checked", "direct"], [RETIRED, [], RETIRED]),
        (["direct", "!indirect", "direct", "guarded"], [RETIRED, [], [], []]),
        (["outer", "direct", "outer"], [["at last", *RETIRED], RETIRED, ["at last", *RETIRED]]),
    ],
)
def test_each_task_has_what_its_plugin_said_when_it_was_imported(
    collections: pathlib.Path, names: list[str], expected: list[list[str]]
) -> None:
    assert results(collections, "core ours", *names) == [expected, expected]


def test_a_forked_worker_repeats_what_was_said_before_it_was_forked(collections: pathlib.Path) -> None:
    assert results(collections, "forked", "direct", "direct", "indirect") == [[RETIRED] * 3]


def test_what_was_said_outside_any_task_is_in_no_tasks_result(collections: pathlib.Path) -> None:
    told, shown = outcome(collections, "core ours", "!direct", "direct", "indirect")
    assert told == [[[], [], []]] * 2 and shown.count(RETIRED[0]) == 2


def test_what_tasks_were_told_is_shown_once_a_plugin_outside_imports_it(collections: pathlib.Path) -> None:
    told, shown = outcome(collections, "core ours", "direct", "!guarded", "!indirect")
    assert told == [[RETIRED, [], []]] * 2 and shown.count(RETIRED[0]) == 2


def test_each_task_with_a_filter_has_what_the_files_beside_the_playbook_say(collections: pathlib.Path) -> None:
    core, ours, threads = results(collections, "core ours threads", "|upper", "direct", "|lower", "|spoken")
    assert core[1] == RETIRED and core[0] == core[2] == core[3]
    assert len(core[0]) == 2 and "at once" in core[0] and "none_such" in "".join(core[0])
    assert ours == threads == core


def test_tasks_that_use_a_plugin_at_once_each_have_what_it_said(collections: pathlib.Path) -> None:
    names = ["indirect", "direct", "silent", "guarded", "direct", "wordy", "derived", "later"]
    expected = [RETIRED, RETIRED, [], RETIRED, RETIRED, WORDS, WORDS, []]
    assert results(collections, "threads", *names) == [expected]
