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


def cases(text: str) -> dict[str, str]:
    """Sources in `text` by the comments that they begin with."""
    return dict(each.split("\n", 1) for each in text.split("# ")[1:])


KEEPING |= cases("""
# a variable of the function around
def make():
    n = 0
    def f(x):
        nonlocal n
        n += 1
        return n
    return f
f = make()

# a list of the function around
def make():
    seen = []
    def f(x):
        seen.append(x)
    return f
f = make()

# a dict of a decorator
def once(g):
    known = {}
    def f(x):
        if x not in known:
            known[x] = g(x)
        return known[x]
    return f
@once
def f(x):
    return open(x).read()

# a list of the method that names filters
class FilterModule:
    def filters(self):
        seen = []
        return {'f': lambda x: seen.append(x)}

# an object that the method makes
class H:
    def __init__(self):
        self.n = 0
    def f(self, x):
        self.n += 1
class FilterModule:
    def filters(self):
        h = H()
        return {'f': h.f}

# an object of the module
class Store:
    def put(self, x):
        self.last = x
store = Store()
def f(x):
    store.put(x)

# a list of a class, by an object
class A:
    seen = []
    def f(self, x):
        self.seen.append(x)

# an attribute of an object's class
class A:
    n = 0
    def f(self):
        type(self).n += 1

# an attribute of an object's class, by its attribute
class A:
    n = 0
    def f(self):
        self.__class__.n += 1

# an attribute of a method's class
class A:
    n = 0
    @classmethod
    def f(cls):
        cls.n += 1

# an attribute of a function
def f(x):
    f.calls = getattr(f, 'calls', 0) + 1

# an attribute, by setattr
class A: pass
def f(x):
    setattr(A, 'x', x)

# globals()
def f(x):
    globals()['n'] = x

# a dict by another name
known = {}
def f(x):
    mine = known
    mine[x] = 1

# what is in a dict
known = {'a': []}
def f(x):
    known.get('a').append(x)

# a dict made on condition
try:
    import yaml
except ImportError:
    yaml = None
else:
    known = {}
def f(x):
    known[x] = 1

# one of two
a, b = {}, {}
def f(x):
    b[x] = 1

# a default of another kind
def f(x, seen=set()):
    seen.add(x)

# a default that is a set
def f(x, seen={0}):
    seen.add(x)

# a cache without limit
import functools
@functools.cache
def f(x):
    return open(x).read()

# a default of a lambda
f = lambda x, seen=[]: seen.append(x) or len(seen)

# a default by name
def f(x, *, seen={}):
    seen[x] = 1

# a cache around a function
import functools
def g(x):
    return open(x).read()
f = functools.lru_cache(None)(g)

# the place in a file
file = open('/etc/passwd')
def f(x):
    return file.readline()

# the working directory, by its name
from os import chdir
def f(x):
    chdir(x)
""")
COMPUTING |= cases("""
# a method's locals
class FilterModule:
    def filters(self):
        found = {}
        found['f'] = str
        found.update(g=int)
        return found

# an object's own
class FilterModule:
    def __init__(self):
        self.prefix = 'x'
    def filters(self):
        return {'f': self.f}
    def f(self, x):
        return self.prefix + x

# a list around a function that is made per call
def f(x):
    found = []
    def walk(y):
        found.append(y)
    walk(x)
    return found

# a decorator
import functools
def checked(g):
    @functools.wraps(g)
    def f(*a, **k):
        k['x'] = 1
        out = []
        out.append(g(*a, **k))
        return out
    return f
@checked
def f(x, sep=',', n=None):
    return x

# a local named like a constant
found = ()
def f(x):
    found = []
    found.append(x)
    return found

# a copy of a constant
BASE = {}
def f(x):
    mine = dict(BASE)
    mine[x] = 1
    other = BASE.copy()
    other.update(mine)
    return other

# what a function gives
def g(x):
    return []
def f(x):
    g(x).append(1)
    y = g(x)
    y.append(2)
    return y

# views of memory
def f(x):
    return bytes(memoryview(x))

# messages
from ansible.utils.display import Display
display = Display()
def f(x):
    display.warning(x)
    return x

# an exception
class Wrong(Exception):
    def __init__(self, x):
        super().__init__(x)
        self.x = x
def f(x):
    raise Wrong(x)

# a table of another module, which json_query extends in each call
import json
def f(x):
    json.table['x'] = json.table['x'] + ('x',)
    return x
""")


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
