# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Nothing is defined that nobody uses."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(path for part in ("ansible_mitogen_svc", "plugins") for path in (ROOT / part).rglob("*.py"))
#: What others call: ansible-core, mitogen, Python (imports, logging, zipfile, subprocess), users of the services.
OTHERS = {
    *("CallbackModule", "ModuleDocFragment", "StrategyModule", "send_display"),
    *("on_accept_client", "on_unrecognized_line_received", "on_partial_line_received", "on_stdio_disconnect"),
    *("start_child", "_reap_first_stage", "_setup_package", "withdraw", "get_service"),
    *("create_module", "exec_module", "iter_modules", "get_code", "get_source", "get_filename"),
    *("emit", "namelist", "send_signal"),
}


def _used(tree: ast.AST) -> Iterator[str]:
    """Words of the code, and of its strings, by which some names are looked up; docstrings call nothing."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    silent = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in silent:
            yield from re.findall(r"\w+", node.value if isinstance(node.value, str) else node.value.decode("latin-1"))


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_every_function_class_and_constant_is_used() -> None:
    trees = {path: ast.parse(path.read_text()) for path in FILES}
    used = {word for tree in trees.values() for word in _used(tree)} | OTHERS
    unused = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in trees.items()
        for name in _defined(tree)
        if name not in used and not name.startswith(("__", "v2_"))
    ]
    assert not unused
