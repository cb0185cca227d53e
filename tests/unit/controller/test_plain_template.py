# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Guesses of what a template gives: what core's templating gives, or nothing."""

from __future__ import annotations

import types
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_mitogen_svc.controller.plain_template import NotPlain, plainly


class Live(dict):  # type: ignore[type-arg]
    """As core's containers that do something when something is taken out of them."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError(key)


VARIABLES = {
    "top": "/srv",
    "base": trust_as_template("{{ top }}/www"),
    "size": 5,
    "site": {"root": "/var/site"},
    "computed": trust_as_template("{{ top | upper }}"),
    "turning": trust_as_template("{{ turning }}"),
    "many": ["a", "b"],
    "others": types.MappingProxyType({"a": "b"}),
    "live": Live(a="b"),
    "odd": "{% raw",
}
ITEM = {"src": "/here/a file.txt", "path": "inner/a file.txt", "mode": "0640", "size": 12, "more": {"x": "y"}}


@pytest.mark.parametrize(
    "text",
    [
        "plain", "/a/{{item.path}}", "{{ item.src }}", "{{ item['src'] }}", '{{ item["more"]["x"] }}/z',
        "{{ base }}/{{ item.path | basename }}", "{{ item.src|dirname }}", "{{ size }}", "n{{ item.size }}n",
        "{{item.mode}}", "{{ site.root }}/{{ item.more.x }}", "", "{{ odd }}",
    ],
)  # fmt: skip
def test_what_can_be_told_is_what_core_makes_of_it(text: str) -> None:
    core = Templar(loader=DataLoader(), variables={**VARIABLES, "item": ITEM})
    try:
        found = plainly(text, VARIABLES, {"item": ITEM})
    except NotPlain:
        assert text == "{{ odd }}"
        return
    assert found == core.template(trust_as_template(text))
    assert type(found) in (str, int)


@pytest.mark.parametrize(
    "value",
    [
        "{{ lookup('pipe', 'touch x') }}", "{{ item.src | upper }}", "{{ missing }}", "{{ item.missing }}",
        "{{ item }}", "{{ item.src ~ 'x' }}", "{% if true %}x{% endif %}", "{{ computed }}", "{{ turning }}",
        "{{ many }}", "{{ many[0] }}", "{{ others.a }}",
        "{# x #}y", "{{ item.path }}{{ now() }}", "{{ item.path", ["{{ item.path }}"], {"a": 1},
    ],
)  # fmt: skip
def test_of_everything_else_nothing_is_told(value: Any) -> None:
    with pytest.raises(NotPlain):
        plainly(value, VARIABLES, {"item": ITEM})


def test_what_a_container_of_core_does_when_something_is_taken_out_is_not_done() -> None:
    assert plainly("{{ live.a }}", VARIABLES, {}) == "b"


def test_what_an_item_holds_is_not_looked_into() -> None:
    assert plainly("{{ item }}/x", {}, {"item": "{{ top }}"}) == "{{ top }}/x"
