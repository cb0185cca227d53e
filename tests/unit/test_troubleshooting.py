# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The pages for users say what there is: every message of ours, every connection, every setting of a strategy."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from ansible_mitogen_svc.statistics import counters

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
STATISTICS = (ROOT / "docs/statistics.md").read_text()
#: Calls with text that a user may see; it is their first argument, but for `Finding`, whose first is its level.
SHOWN = {"_reading", "warning", "error", "vvv", "display", "say", "refuse", "CommandError", "Compatibility", "Finding"}
#: Shown by ansible-core itself in the same place and words: the target's own name and command, said before it acts.
TRACES = {"ESTABLISH SSH CONNECTION FOR USER", "PUT ", "FETCH "}


def messages() -> list[tuple[str, str]]:
    """(file, the longest literal part of the message) of each warning and error, in order."""
    found = []
    for path in sorted([*(ROOT / "ansible_mitogen_svc").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]):
        if "target" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            for shown in _shown(node):
                text = _literal(shown, functions)
                if len(text) > 12 and not any(trace in text for trace in TRACES):
                    found.append((path.relative_to(ROOT).as_posix(), text))
    return found


def _shown(node: ast.AST) -> list[ast.expr]:
    """The argument of a call that a user may see."""
    if not isinstance(node, ast.Call):
        return []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "fail_json":
        return [keyword.value for keyword in node.keywords if keyword.arg == "msg"]
    if name == "Finding" and getattr(node.args[0], "value", "") == "ok":
        return []
    if name in SHOWN or (name.startswith("Ansible") and name not in ("AnsibleModule", "AnsibleFileNotFound")):
        return node.args[-1:] if name in ("Finding", "Compatibility") else node.args[:1]
    return []


def _literal(node: ast.expr, functions: Mapping[str, ast.FunctionDef] = MappingProxyType({})) -> str:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        returns = [each for each in ast.walk(functions[node.func.id]) if isinstance(each, ast.Return)]
        return max((_literal(each.value) for each in returns if each.value), key=len, default="")
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return max((piece.strip(" :(;\n") for text in texts for piece in text.splitlines()), key=len, default="")


def test_there_are_messages_to_look_for() -> None:
    assert len(messages()) > 40


@pytest.mark.parametrize(("file", "text"), messages(), ids=lambda value: value[:40])
def test_every_message_is_explained(file: str, text: str) -> None:
    plain = re.sub(r"\s+", " ", PAGE)
    assert re.sub(r"\s+", " ", text) in plain, (
        f"{file} can print {text!r}; docs/troubleshooting.md does not say what to do"
    )


def reasons() -> set[str]:
    """What the statistics may give as reason for a task's worker or a module's way: the literal part of each."""
    found: list[ast.expr] = []
    for path in sorted((ROOT / "ansible_mitogen_svc").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                found += _reason_of_call(node)
            elif isinstance(node, ast.FunctionDef) and node.name == "_svc_why_files":
                found += [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
            elif isinstance(node, ast.Assign) and _name(node.targets[0]) in ("reason", "refusal", "svc_unavailable"):
                found.append(node.value)
    choices = [(node.body, node.orelse) if isinstance(node, ast.IfExp) else (node,) for node in found]
    return {_literal(choice) for each in choices for choice in each} - {""}


def _reason_of_call(node: ast.Call) -> list[ast.expr]:
    name = _name(node.func)
    if name == "_svc_count" or name == "add" and [_literal(each) for each in node.args[:2]] == ["module_runs", "cold"]:
        return node.args[-1:]
    place = {"NotSplit": 0, "_unsuitable": 0, "Decision": 1, "StartFailure": 3}.get(name, len(node.args))
    return node.args[place : place + 1]


def _name(node: ast.expr) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def test_every_reason_in_the_statistics_is_explained() -> None:
    known = reasons()
    assert {"async", "not ansiballz", "no-python", "module style", "identity did not start", "prompt"} <= known
    assert not [reason for reason in sorted(known) if f"`{reason}" not in STATISTICS and f" {reason}" not in STATISTICS]


def test_every_part_of_the_statistics_is_explained() -> None:
    assert not [part for part in counters.report() if f"| `{part}` |" not in STATISTICS]


def test_every_connection_is_in_the_table() -> None:
    table = (ROOT / "docs/connections.md").read_text()
    transports = [path.stem for path in (ROOT / "ansible_mitogen_svc/controller/transport").glob("[a-z]*.py")]
    assert not [name for name in transports if f"`{name}`" not in table]


def test_every_option_of_ansible_mitogen_is_in_the_migration_table() -> None:
    spec = importlib.util.find_spec("ansible_mitogen")
    assert spec is not None and spec.submodule_search_locations
    there = pathlib.Path(next(iter(spec.submodule_search_locations)))
    options = set(re.findall(r"\('(mitogen_\w+)'\)", (there / "transport_config.py").read_text()))
    options |= {path.stem for kind in ("action", "strategy") for path in there.glob(f"plugins/{kind}/mitogen*.py")}
    variables = r"environ.get\(\s*['\"](MITOGEN_\w+)"
    options |= {name for path in there.glob("*.py") for name in re.findall(variables, path.read_text())}
    assert len(options) > 15
    page = (ROOT / "docs/migrating.md").read_text()
    # It stands in for core's action without being asked for.
    options.discard("mitogen_fetch")
    assert not [name for name in sorted(options) if not re.search(rf"[` ]{name}[`:]", page)]


def test_every_diagram_was_drawn_from_what_its_source_says_now() -> None:
    folder = ROOT / "docs/diagrams"
    spec = importlib.util.spec_from_file_location("draw", folder / "draw.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    sources = sorted(folder.glob("*.dot"))
    assert sources
    stale = [each.name for each in sources if not each.with_suffix(".svg").read_text().endswith(draw.mark(each))]
    assert not stale, "run python docs/diagrams/draw.py"


@pytest.mark.parametrize("page", ["contributing", "architecture", "differences", "protocol", "security"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    names = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", (ROOT / f"docs/{page}.md").read_text()))
    folders = ("ansible_mitogen_svc", "tests", "docs", "plugins")
    files = [path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert not [name for name in names if not any(path.endswith("/" + name) for path in files)]
