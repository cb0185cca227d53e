# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Results for callbacks are those that core makes, whatever is in them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
from ansible.module_utils._internal._datatag import AnsibleTagHelper
from ansible.parsing.vault import EncryptedString, VaultLib, VaultSecret
from ansible.utils import vars as core_vars
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as make

from ansible_mitogen_svc.controller.compat import native_values

SCALARS = make.one_of(
    *(make.none(), make.booleans(), make.integers(), make.floats(allow_nan=False), make.text(), make.dates()),
    make.datetimes(timezones=make.just(datetime.UTC)),
)
CORE = core_vars.transform_to_native_types


def tagged(values: make.SearchStrategy[Any]) -> make.SearchStrategy[Any]:
    return values.map(lambda value: AnsibleTagHelper.try_tag(value, (Origin(description="x"), TrustedAsTemplate())))


def either(values: make.SearchStrategy[Any]) -> make.SearchStrategy[Any]:
    return make.one_of(values, tagged(values))


RESULTS = make.recursive(
    either(SCALARS),
    lambda inner: either(
        make.one_of(
            make.dictionaries(either(make.text()), inner, max_size=4),
            make.lists(inner, max_size=4),
            make.lists(make.integers(), max_size=3).map(tuple),
        )
    ),
    max_leaves=20,
)


def shown(value: Any) -> Any:
    """A value with the types of everything in it."""
    if isinstance(value, dict):
        return type(value), [(shown(key), shown(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set)):
        return type(value), [shown(item) for item in value]
    return type(value), repr(value)


def outcome(convert: Any, value: Any) -> Any:
    try:
        return shown(convert(value))
    except Exception as error:
        return type(error), str(error)


# The first run in a checkout makes tables of all characters.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(RESULTS)
def test_a_result_is_what_core_makes_of_it(value: Any) -> None:
    assert outcome(native_values.converting(CORE), value) == outcome(CORE, value)


class Text(str):
    pass


def vaulted() -> Any:
    secret = VaultLib([("default", VaultSecret(b"password"))]).encrypt("a secret", VaultSecret(b"password"))
    return EncryptedString(ciphertext=secret.decode())


@pytest.mark.parametrize("make_value", [vaulted, lambda: Text("x"), object, lambda: {1, 2}, lambda: (1, "x")])
def test_what_is_unusual_is_cores_to_convert_or_refuse(make_value: Any) -> None:
    value = {"a": [{"b": make_value()}], "c": AnsibleTagHelper.tag("d", (Origin(description="x"),))}
    assert outcome(native_values.converting(CORE), value) == outcome(CORE, value)


def test_a_vaulted_value_is_never_shown() -> None:
    assert native_values.converting(CORE)({"a": [vaulted()]}) == {"a": ["<redacted>"]}


def test_containers_are_new_ones() -> None:
    inner = {"b": [1]}
    value = {"a": inner}
    found = native_values.converting(CORE)(value)
    assert found == value and found is not value and found["a"] is not inner and found["a"]["b"] is not inner["b"]


def test_usual_results_are_not_given_to_core() -> None:
    value = {"a": [1, 1.5, None, True, AnsibleTagHelper.tag({"b": "c"}, (Origin(description="x"),))]}
    assert native_values.converting(lambda *arguments: 1 / 0)(value) == {"a": [1, 1.5, None, True, {"b": "c"}]}
