# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Threads that make syntax trees take turns, where Python cannot make two at once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from ansible.executor import module_common

from ansible_mitogen_svc.controller.compat import syntax_trees


@pytest.fixture(autouse=True)
def removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a test all is as before."""
    for module in (ast, module_common):
        monkeypatch.setitem(vars(module), "compile", compile)


class Held(os.PathLike[str]):
    """A file name that is not told before `release`: whoever makes a tree of that file stands still in the middle."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()

    def __fspath__(self) -> str:
        self.asked.set()
        assert self.release.wait(30)
        return "held"


def test_a_second_thread_waits_until_the_first_has_its_tree() -> None:
    syntax_trees.install(concerned=True)
    held, made = Held(), []
    first = threading.Thread(target=lambda: made.append(ast.unparse(ast.parse("1", held))))
    second = threading.Thread(target=lambda: made.append(ast.literal_eval("2")))
    first.start()
    assert held.asked.wait(30)
    second.start()
    second.join(0.3)
    assert made == [] and second.is_alive()
    held.release.set()
    for thread in (first, second):
        thread.join(30)
    assert made == ["1", 2]


def test_cores_packing_takes_its_turn_as_well() -> None:
    syntax_trees.install(concerned=True)
    held = Held()
    first = threading.Thread(target=lambda: ast.parse("1", held))
    second = threading.Thread(target=lambda: module_common._compile_module_ast("ansible.modules.x", "import os"))
    first.start()
    assert held.asked.wait(30)
    second.start()
    second.join(0.3)
    waited = second.is_alive()
    held.release.set()
    for thread in (first, second):
        thread.join(30)
    assert waited


def test_a_forked_child_does_not_wait_for_a_thread_that_it_has_not() -> None:
    syntax_trees.install(concerned=True)
    held = Held()
    thread = threading.Thread(target=lambda: ast.parse("1", held))
    thread.start()
    assert held.asked.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(0 if ast.literal_eval("7") == 7 else 1)
    held.release.set()
    thread.join(30)
    assert os.waitpid(child, 0)[1] == 0


def test_a_python_that_is_not_concerned_is_left_alone() -> None:
    syntax_trees.install(concerned=False)
    assert vars(ast)["compile"] is compile


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="only Python 3.11 is seen to fail without the lock")
def test_trees_that_are_made_in_threads_are_right() -> None:
    program = """
        import ast, sys, threading
        from ansible_mitogen_svc.controller.compat import syntax_trees
        syntax_trees.install()
        sys.setswitchinterval(1e-6)
        text = repr([{"b": "x" * 50} for _ in range(2000)])
        class Cycle:
            def __init__(self): self.itself = self
            def __del__(self): sum(range(50))
        def make():
            for _ in range(20):
                for _ in range(200): Cycle()
                ast.literal_eval(text)
            print("made")
        for _ in range(4): threading.Thread(target=make).start()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["made"] * 4, done.stderr
