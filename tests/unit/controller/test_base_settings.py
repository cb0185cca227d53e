# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Settings that are remembered are what core finds, also after the environment or the configuration has changed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from ansible.config.manager import ConfigManager
from ansible.errors import AnsibleError

from ansible_mitogen_svc.controller.compat import base_settings

CORE: Any = vars(ConfigManager)["get_config_value_and_origin"]
DEBUGGER = "TASK_DEBUGGER_IGNORE_ERRORS"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the settings that core was asked for."""
    names: list[str] = []

    def core(self: Any, config: str, *arguments: Any, **keywords: Any) -> Any:
        names.append(config)
        return CORE(self, config, *arguments, **keywords)

    monkeypatch.setattr(ConfigManager, "get_config_value_and_origin", base_settings.remembering(core))
    return names


@pytest.fixture
def config(asked: list[str], tmp_path: Path) -> ConfigManager:
    path = tmp_path / "ansible.cfg"
    path.write_text("[defaults]\ntask_debugger_ignore_errors = false\nforks = 7\n")
    manager = ConfigManager(str(path))
    asked.clear()
    return manager


def test_every_setting_is_what_core_finds(config: ConfigManager) -> None:
    def outcome(ask: Any, name: str, **given: Any) -> Any:
        try:
            return ask(name, **given)
        except AnsibleError as error:
            return str(error)

    definitions = config.get_configuration_definitions()
    # Asking for a temporary directory makes one.
    for name in [name for name, each in definitions.items() if each.get("type") != "tmppath"]:
        for given in ({}, {}, {"variables": {"a": 1}}, {"variables": None}):
            expected = outcome(functools.partial(CORE, config), name, **given)
            assert outcome(config.get_config_value_and_origin, name, **given) == expected


def test_a_setting_is_looked_for_once(config: ConfigManager, asked: list[str]) -> None:
    assert [config.get_config_value(DEBUGGER) for _time in range(3)] == [False] * 3
    assert [config.get_config_value("DEFAULT_FORKS") for _time in range(3)] == [7] * 3
    assert asked == [DEBUGGER, "DEFAULT_FORKS"]


def test_another_environment_is_seen(config: ConfigManager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.get_config_value_and_origin(DEBUGGER)[0] is False
    monkeypatch.setenv("ANSIBLE_TASK_DEBUGGER_IGNORE_ERRORS", "true")
    assert config.get_config_value_and_origin(DEBUGGER) == (True, "env: ANSIBLE_TASK_DEBUGGER_IGNORE_ERRORS")
    monkeypatch.delenv("ANSIBLE_TASK_DEBUGGER_IGNORE_ERRORS")
    assert config.get_config_value_and_origin(DEBUGGER)[0] is False


def test_another_configuration_file_is_seen(config: ConfigManager, tmp_path: Path) -> None:
    assert config.get_config_value(DEBUGGER) is False
    other = tmp_path / "other.cfg"
    other.write_text("[defaults]\n")
    assert ConfigManager(str(other)).get_config_value(DEBUGGER) is True
    assert config.get_config_value(DEBUGGER) is False


def test_lists_are_the_askers_own(config: ConfigManager) -> None:
    first = config.get_config_value("DEFAULT_VAULT_IDENTITY_LIST")
    first.append("spoilt")
    assert config.get_config_value("DEFAULT_VAULT_IDENTITY_LIST") == []


@pytest.mark.parametrize("value", ["/of/a/variable", "", None])
def test_a_variable_is_seen(config: ConfigManager, asked: list[str], value: Any) -> None:
    name, variables = "INTERPRETER_PYTHON", {"ansible_python_interpreter": value, "other": 1}
    for given in ({"other": 1}, variables, None, variables, {"other": 1}):
        assert config.get_config_value_and_origin(name, variables=given) == CORE(config, name, variables=given)
    assert asked == [name] * (1 if value is None else 3)


def test_a_variable_spares_a_setting_that_is_wrong_elsewhere(
    config: ConfigManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_WIN_ASYNC_STARTUP_TIMEOUT", "not a number")
    variables = {"ansible_win_async_startup_timeout": 7}
    assert config.get_config_value("WIN_ASYNC_STARTUP_TIMEOUT", variables=variables) == 7
    with pytest.raises(AnsibleError, match="WIN_ASYNC_STARTUP_TIMEOUT"):
        config.get_config_value("WIN_ASYNC_STARTUP_TIMEOUT")


def test_more_than_a_name_is_asked_of_core(config: ConfigManager, asked: list[str]) -> None:
    for _time in range(2):
        config.get_config_value(DEBUGGER, keys={"a": 1})
    assert asked == [DEBUGGER, DEBUGGER]


def test_settings_with_an_effect_are_asked_for_each_time(
    config: ConfigManager, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = config.get_configuration_definitions()
    monkeypatch.chdir(tmp_path)
    temporary = next(name for name, each in definitions.items() if each.get("type") == "tmppath")
    for _time in range(2):
        config.get_config_value(temporary)
    assert asked == [temporary, temporary]


def test_a_setting_that_does_not_exist_is_cores_error(config: ConfigManager) -> None:
    with pytest.raises(Exception, match="NO_SUCH_SETTING"):
        config.get_config_value_and_origin("NO_SUCH_SETTING")
