# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Facts are cleaned as core cleans them, the first time and whenever they come again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible._internal._datatag._tags import Origin
from ansible.plugins import loader
from ansible.utils.display import Display
from ansible.vars import clean
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as make

from ansible_mitogen_svc.controller.compat import fact_cleaning

CORE = clean.clean_facts
ORIGIN = Origin(description="x")
NAMES = make.sampled_from(
    (
        *(
            "ansible_system",
            "ansible_ssh_host_key_rsa_public",
            "ansible_local",
            "a",
            "ansible_docker0",
            "_ansible_kept",
        ),
        *("ansible_connection", "ansible_ssh_user", "ansible_become_user", "ansible_python_interpreter"),
        *("ansible_local_x", "ansible_ssh_bridge", "ansible_rsync_path", "add_host"),
    )
)
SCALARS = make.one_of(make.none(), make.booleans(), make.integers(), make.text(max_size=3), make.text().map(ORIGIN.tag))
FACTS = make.dictionaries(
    NAMES,
    make.recursive(
        SCALARS,
        lambda inner: make.one_of(
            make.lists(inner, max_size=3),
            make.dictionaries(make.sampled_from(("b", "_ansible_b")), inner),
            make.lists(inner, max_size=2).map(tuple),
            make.lists(inner, max_size=2).map(ORIGIN.tag),
        ),
        max_leaves=8,
    ),
)


def same(found: Any, expected: Any) -> bool:
    return repr(found) == repr(expected) and type(found) is type(expected) and list(found) == list(expected)


# The first run in a checkout makes tables of all characters.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(FACTS)
def test_facts_are_what_core_leaves_of_them(facts: dict[str, Any]) -> None:
    cleaning = fact_cleaning.cleaning(CORE)
    expected = CORE(facts)
    assert [same(cleaning(facts), expected) for _time in range(3)] == [True] * 3


@pytest.fixture
def asked() -> list[Any]:
    return []


@pytest.fixture
def cleaning(asked: list[Any]) -> Any:
    def core(facts: Any) -> Any:
        asked.append(facts)
        return CORE(facts)

    return fact_cleaning.cleaning(core)


def test_names_are_compared_once(cleaning: Any, asked: list[Any]) -> None:
    first, second = {"ansible_system": "a", "_ansible_x": 1}, {"_ansible_x": 1, "ansible_system": "b"}
    assert [cleaning(first), cleaning(second), cleaning(first)] == [
        {"ansible_system": "a"},
        {"ansible_system": "b"},
        {"ansible_system": "a"},
    ]
    assert asked == [first]


def test_no_facts_are_no_question(cleaning: Any, asked: list[Any]) -> None:
    assert cleaning({}) == {} and not asked


def test_names_that_are_not_allowed_are_removed_each_time(cleaning: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda self, message, *arguments, **keywords: warnings.append(message))
    facts = {"ansible_system": "a", "ansible_python_interpreter": "/bad"}
    assert [cleaning(facts) for _time in range(2)] == [{"ansible_system": "a"}] * 2
    assert len(warnings) == 2 and "ansible_python_interpreter" in warnings[1]


def test_a_copy_is_its_askers_own(cleaning: Any) -> None:
    facts: dict[str, Any] = {"a": {"b": [1]}}
    for _time in range(2):
        cleaning(facts)["a"]["b"].append(2)
    assert facts == {"a": {"b": [1]}}


def test_a_connection_plugin_that_comes_later_forbids_names(
    cleaning: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"ansible_late_host": "a", "b": 1}
    paths = [*loader.connection_loader._get_paths(), str(tmp_path)]
    monkeypatch.setattr(loader.connection_loader, "_get_paths", lambda *arguments: paths)
    monkeypatch.setattr(
        loader.connection_loader, "all", lambda **keywords: [str(path) for path in tmp_path.glob("*.py")]
    )
    assert cleaning(facts) == facts and cleaning(facts) == facts
    (tmp_path / "late.py").write_text("")
    assert cleaning(facts) == {"b": 1}


def test_the_memory_is_bounded(cleaning: Any, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_cleaning, "LIMIT", 3)
    for number in range(8):
        cleaning({f"fact{number}": 1})
    cleaning({"fact7": 2})
    cleaning({"fact0": 2})
    assert len(asked) == 9
