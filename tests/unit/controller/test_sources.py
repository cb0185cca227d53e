# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Sources of core's functions, read by their indentation, are those that Python's own tools read."""

from __future__ import annotations

import inspect
import json
import textwrap
from typing import Any

import pytest
from ansible.cli import playbook as _everything_core_has_loaded  # noqa: F401

from ansible_mitogen_svc.controller.compat import caches, sources

COMPARED = sorted(
    {name if ":" in name else caches._join(each.owner, name) for each in caches.SHORTCUTS for name in each.compared}
)


def outer(
    first: int,
    second: str = """
a line further out
""",
) -> Any:
    def inner() -> None:
        # A comment.

        text = """
further out again: (
"""
        print(text)

    # The last lines.

    return inner


# A comment behind the function.
class Decorated:
    def method(self) -> str: return textwrap.dedent("")  # fmt: skip  # noqa: E704

    @property
    def other(self) -> int:
        return 1


@pytest.mark.parametrize("name", COMPARED)
def test_the_source_is_that_of_inspect(name: str) -> None:
    try:
        found = caches._find(name)
    except AttributeError:
        assert "_deprecate_top_level_fact" in name  # which 2.19 has not
        return
    assert sources.source(found) == inspect.getsource(found)


@pytest.mark.parametrize("thing", [outer, outer(1), Decorated, Decorated.method, json.JSONEncoder, json.dumps])
def test_odd_blocks_end_where_they_end(thing: Any) -> None:
    assert sources.source(thing) == inspect.getsource(thing)


def test_what_was_not_made_of_python_has_no_source() -> None:
    with pytest.raises(TypeError):
        sources.source(len)
    namespace: dict[str, Any] = {}
    exec(compile("def made() -> None: pass", "<nowhere>", "exec"), namespace)
    with pytest.raises(OSError):
        sources.source(namespace["made"])
