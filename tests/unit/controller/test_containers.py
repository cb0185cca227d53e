# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Copies of a task's arguments: containers of their own, the same tags, and no time spent on the tags."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.module_utils._internal._datatag import AnsibleTagHelper
from ansible.parsing.dataloader import DataLoader

from ansible_mitogen_svc.controller.compat.containers import own_containers

ARGUMENTS = """
cmd: echo {{ item }}
argv: [a, {b: [c, 1, true, null]}]
sets: !!set {x, y}
"""


def arguments() -> Any:
    return DataLoader().load(ARGUMENTS, "/playbook.yml")


def inside(value: Any) -> Iterator[Any]:
    """`value` and all that it has in it."""
    yield value
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from inside(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from inside(item)


def test_values_types_and_tags_are_the_same_and_no_container_is() -> None:
    original = arguments()
    own = own_containers(original)
    assert own == original
    for ours, theirs in zip(inside(own), inside(original), strict=True):
        assert type(ours) is type(theirs) and AnsibleTagHelper.tags(ours) == AnsibleTagHelper.tags(theirs)
        assert ours is not theirs or not isinstance(ours, (dict, list, set))
    assert any(AnsibleTagHelper.tags(each) for each in inside(own))


def test_containers_without_tags_are_copied_too() -> None:
    original = {"a": [{"b": ({1}, [2])}]}
    own = own_containers(original)
    own["a"][0]["b"][0].add(3)
    own["a"][0]["b"][1].append(3)
    own["a"].append(4)
    assert original == {"a": [{"b": ({1}, [2])}]}


def test_no_tagged_dict_or_list_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(copy, "deepcopy", lambda value: taken.append(value) or value)
    own_containers(arguments())
    assert [sorted(each) for each in taken] == [["x", "y"]]
