# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which part may import which: docs/architecture.md says it, this holds us to it."""

from __future__ import annotations

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "ansible_mitogen_svc"
#: Part of the package -> prefixes of what its modules may import beside the standard library.
ALLOWED = {
    "wire": (f"{PACKAGE}.wire",),
    "target": (f"{PACKAGE}.wire", f"{PACKAGE}.target", "mitogen.core", "ansible.module_utils"),
    "service": (f"{PACKAGE}.service", "mitogen"),
    "services": (f"{PACKAGE}.service", f"{PACKAGE}.services", f"{PACKAGE}.wire", f"{PACKAGE}.statistics", "mitogen"),
    "controller": (
        f"{PACKAGE}.controller", f"{PACKAGE}.service", f"{PACKAGE}.services", f"{PACKAGE}.wire",
        f"{PACKAGE}.spans", f"{PACKAGE}.statistics", "mitogen", "ansible",
    ),
}


def imported(path: pathlib.Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module if node.module != PACKAGE else f"{PACKAGE}.{node.names[0].name}")
    return names


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_part_imports_only_what_lies_below_it(part: str) -> None:
    files = sorted((ROOT / PACKAGE / part).rglob("*.py"))
    assert files
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported(path)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[part])
    }
    assert not wrong


def test_nothing_imports_the_peer() -> None:
    files = [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    assert not {path for path in files for name in imported(path) if name.partition(".")[0] == "ansible_mitogen"}
