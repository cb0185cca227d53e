# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Variables with the tags that core puts on them, made once."""

from __future__ import annotations

from typing import Any

import pytest
from ansible._internal._datatag._tags import Origin
from ansible.module_utils._internal._datatag import AnsibleTagHelper
from ansible.module_utils._internal._datatag._tags import Deprecated

from ansible_mitogen_svc.controller.compat import variable_tags

CORE = Deprecated(msg="old")
ORIGIN = Origin(description="x")


def shown(value: Any) -> Any:
    return type(value), value, sorted(map(repr, AnsibleTagHelper.tags(value)))


@pytest.mark.parametrize("value", ["a", "", 1, 1.5, True, None, [1], {"a": 1}, (1,)], ids=repr)
@pytest.mark.parametrize("tags", [(), (ORIGIN,), (Deprecated(msg="older"),)])
def test_a_value_has_the_tag_that_core_gives_it(value: Any, tags: Any) -> None:
    value = AnsibleTagHelper.try_tag(value, tags)
    tag = variable_tags.remembering(CORE)
    for _time in range(2):
        assert shown(tag.tag(value)) == shown(CORE.tag(value))


def test_equal_values_with_other_tags_are_told_apart() -> None:
    tag = variable_tags.remembering(CORE)
    plain, tagged = "a value", ORIGIN.tag("a value")
    assert [shown(tag.tag(each)) for each in (plain, tagged)] == [shown(CORE.tag(each)) for each in (plain, tagged)]
    assert tag.tag(1) == 1 and type(tag.tag(True)) is bool and type(tag.tag(1.0)) is type(CORE.tag(1.0))


def test_strings_are_tagged_once_and_containers_each_time() -> None:
    tag = variable_tags.remembering(CORE)
    text, container = ORIGIN.tag("a value"), {"a": 1}
    assert tag.tag(text) is tag.tag(text)
    first = tag.tag(container)
    container["b"] = 2
    assert first == {"a": 1} and tag.tag(container) == {"a": 1, "b": 2}


def test_values_that_come_and_go_are_never_mistaken_for_one_another() -> None:
    tag = variable_tags.remembering(CORE)
    for number in range(5000):
        value = f"value {number}"
        assert tag.tag(value) == value
        del value


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variable_tags, "LIMIT", 10)
    tag = variable_tags.remembering(CORE)
    values = [f"value {number}" for number in range(35)]
    assert [tag.tag(value) for value in values] == values
    assert len(tag._known) <= 10


def test_a_tag_remembers_once() -> None:
    tag = variable_tags.remembering(CORE)
    assert variable_tags.remembering(tag) is tag


def test_long_strings_are_not_kept() -> None:
    """A variable of megabytes that each task sets anew would be there once for each."""
    tag = variable_tags.remembering(CORE)
    for value in ("x" * (variable_tags.LONGEST + 1), Origin(path="/x").tag("y" * (variable_tags.LONGEST + 1))):
        tagged = tag.tag(value)
        assert tagged == value and tagged is not tag.tag(value)
    assert not tag._known
    assert tag.tag(short := "x" * variable_tags.LONGEST) is tag.tag(short)
