# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Filters that may keep something are told from those that only compute, by their source."""

from __future__ import annotations

import pathlib

import pytest

from ansible_mitogen_svc.controller.workers.plugin_state import keeps_state

KEEPING = {
    "a global variable": "n = 0\ndef f(x):\n    global n\n    n += 1\n    return n\n",
    "a cache": "import functools\n@functools.lru_cache(maxsize=None)\ndef f(x):\n    return open(x).read()\n",
    "a dict of the module": "known = {}\ndef f(x):\n    return known.setdefault(x, open(x).read())\n",
    "an item of such a dict": "known: dict = {}\ndef f(x):\n    known[x] = 1\n",
    "a counter": "import itertools\nn = itertools.count()\nf = lambda x: next(n)\n",
    "an attribute of a class": "class A:\n    n = 0\ndef f(x):\n    A.n += 1\n",
    "an attribute of the plugin": "class FilterModule:\n    def f(self, x):\n        self.last = x\n",
    "a default": "def f(x, seen=[]):\n    seen.append(x)\n    return len(seen)\n",
    "the environment": "import os\ndef f(x):\n    os.environ['X'] = x\n",
    "the environment, by a method": "import os\ndef f(x):\n    os.environ.update(X=x)\n",
    "the working directory": "import os\ndef f(x):\n    os.chdir(x)\n",
    "the import path": "import sys\ndef f(x):\n    sys.path.insert(0, x)\n",
    "what does not parse": "def f(:\n",
}
COMPUTING = {
    "locals": "def f(x):\n    found = []\n    found.append(x)\n    found[0] = 1\n    return {**dict(a=found)}\n",
    "constants": "NAMES = {'a': 1}\nNAMES.update(b=2)\ndef f(x):\n    return NAMES.get(x) or NAMES[x]\n",
    "an object per call": "class A:\n    def __init__(self):\n        self.x = []\ndef f(x):\n    return A().x\n",
    "the environment, to read": "import os\ndef f(x):\n    return os.environ.get(x) or os.environ['HOME']\n",
    "a method of a value": "def f(x):\n    return x.update({}) or x.pop()\n",
}


@pytest.mark.parametrize("source", KEEPING.values(), ids=KEEPING)
def test_what_outlives_a_call_is_found(source: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "plugin.py").write_text(source)
    assert keeps_state(str(tmp_path / "plugin.py"))


@pytest.mark.parametrize("source", COMPUTING.values(), ids=COMPUTING)
def test_what_only_computes_needs_no_process(source: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "plugin.py").write_text(source)
    assert not keeps_state(str(tmp_path / "plugin.py"))


def test_a_plugin_that_cannot_be_read_may_do_anything(tmp_path: pathlib.Path) -> None:
    assert keeps_state(str(tmp_path / "none.py"))
