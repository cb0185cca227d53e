# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The tables of docs/differences.md name tests that there are."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/differences.md").read_text()
INTEGRATION = ROOT / "tests/integration"


def rows(title: str) -> list[list[str]]:
    """The cells of each row of the table below a title."""
    lines = PAGE.partition(f"## {title}")[2].partition("\n## ")[0].splitlines()
    table = [line.strip("|").split(" | ") for line in lines if line.startswith("|")]
    return table[2:]


def exists(name: str) -> bool:
    if name.endswith(".py"):
        return (INTEGRATION / name).exists() or (ROOT / name).exists()
    return (INTEGRATION / "targets" / name.partition(" ")[0] / "playbook.yml").exists()


@pytest.mark.parametrize("title", ["Which test shows what", "Noted limits of `ansible_mitogen`, and what happens here"])
def test_every_row_names_a_test_that_there_is(title: str) -> None:
    found = {tuple(row): re.findall(r"`([^`]+)`", row[-1]) for row in rows(title)}
    assert len(found) > 20
    assert not [row for row, names in found.items() if not names]
    assert not [(row[0], name) for row, names in found.items() for name in names if not exists(name)]
