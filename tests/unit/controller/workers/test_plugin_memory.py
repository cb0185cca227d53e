# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Options and whereabouts of plugins are remembered only while everything they come from is the same."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible import constants, context
from ansible.module_utils._internal._datatag import AnsibleTagHelper
from ansible.plugins.loader import (
    PluginLoader,
    action_loader,
    become_loader,
    connection_loader,
    init_plugin_loader,
    shell_loader,
)
from ansible.template import trust_as_template
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from ansible.utils.context_objects import CLIArgs

from ansible_mitogen_svc.controller.compat import plugin_finding, plugin_options
from ansible_mitogen_svc.controller.compat.late_parser import LateArgparse

CONFIG = constants.config
CORE = vars(type(CONFIG))["get_plugin_options_and_origins"]
FIND = vars(PluginLoader)["find_plugin_with_context"]
PLUGINS = (("connection", "ssh"), ("connection", "local"), ("shell", "sh"), ("become", "sudo"))
#: Arguments in their order; each is told from the one before.
CALLS: list[dict[str, Any]] = [
    {},
    {"keys": {"port": 1}, "variables": {}},
    {"keys": {"port": True}, "variables": {}},
    {"keys": {"port": "1"}},
    {"keys": {"port": None}, "variables": {"ansible_port": 3}},
    {"variables": {"ansible_port": 3, "ansible_ssh_port": 4}},
    {"variables": {"ansible_ssh_port": 3, "ansible_port": 4}},
    {"keys": {"remote_user": "a", "become_user": "a", "timeout": 3}},
    {"keys": {"remote_user": trust_as_template("a"), "become_user": "b", "timeout": 3}},
    {"variables": {"ansible_password": "sesame", "ansible_become_password": "sesame"}},
    {"variables": {"ansible_password": "open", "ansible_become_password": "open"}},
    {"keys": {"environment": [{"A": 1}], "vars": {}}},
    {"keys": {"password": "of the play", "become_pass": "of the play"}},
    {"variables": {"ansible_pipelining": 0}},
    {"variables": {"ansible_pipelining": False}},
    {"variables": {"ansible_pipelining": "yes", "ansible_remote_tmp": "/a"}},
    {"variables": {"ansible_system_tmpdirs": ["/a", "/b"], "ansible_ssh_args": "-v"}},
    {"variables": {"ansible_system_tmpdirs": [], "ansible_ssh_args": ""}},
]


@pytest.fixture(autouse=True)
def definitions() -> None:
    if not any(isinstance(finder, _AnsibleCollectionFinder) for finder in sys.meta_path):
        init_plugin_loader()
    for loader, name in (
        (connection_loader, "ssh"),
        (connection_loader, "local"),
        (shell_loader, "sh"),
        (become_loader, "sudo"),
    ):
        loader.get(name, class_only=True)


@pytest.fixture
def asked() -> list[tuple[str, str]]:
    """The plugins core was asked about by `remembered`."""
    return []


@pytest.fixture
def remembered(asked: list[tuple[str, str]]) -> Callable[..., Any]:
    def core(config: Any, plugin_type: str, name: str, **keywords: Any) -> Any:
        asked.append((plugin_type, name))
        return CORE(config, plugin_type, name, **keywords)

    return plugin_options.remembering(core)


def same(left: Any, right: Any) -> bool:
    """Whether both are equal in types and tags, too."""
    shown = [
        [
            (name, type(value), value, sorted(map(repr, AnsibleTagHelper.tags(value))), origins[name])
            for name, value in options.items()
        ]
        for options, origins in (left, right)
    ]
    return shown[0] == shown[1]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_options_are_what_core_gives_whatever_was_asked_before(remembered: Callable[..., Any], plugin: Any) -> None:
    for _round in range(2):
        for number, call in enumerate(CALLS):
            assert same(remembered(CONFIG, *plugin, **call), CORE(CONFIG, *plugin, **call)), number


@pytest.mark.parametrize("call", [CALLS[1], CALLS[5], CALLS[7], CALLS[8], CALLS[10], CALLS[13]])
def test_options_are_not_worked_out_again(
    remembered: Callable[..., Any], asked: list[Any], call: dict[str, Any]
) -> None:
    first = remembered(CONFIG, "connection", "ssh", **call)
    assert same(remembered(CONFIG, "connection", "ssh", **call), first)
    assert len(asked) == 1


def test_secrets_are_in_no_memory(remembered: Callable[..., Any]) -> None:
    for plugin in PLUGINS[:1] + PLUGINS[3:]:
        for call in (CALLS[9], CALLS[10], CALLS[12]):
            remembered(CONFIG, *plugin, **call)
    memory = next(cell.cell_contents for cell in remembered.__closure__ if hasattr(cell.cell_contents, "plugin"))
    kept = repr([(list(known), list(known.values())) for _sources, known in memory._plugins.values()])
    assert len(kept) > 1000
    assert not any(secret in kept for secret in ("sesame", "'open'", "of the play"))


def test_a_list_that_changes_in_place_is_seen(remembered: Callable[..., Any]) -> None:
    places = ["/a"]
    for place in ("/b", "/c"):
        options, _origins = remembered(CONFIG, "shell", "sh", variables={"ansible_system_tmpdirs": places})
        assert options["system_tmpdirs"] == places
        places.append(place)


def test_what_a_plugin_does_to_its_options_is_its_own_affair(remembered: Callable[..., Any]) -> None:
    for _call in range(3):
        options, origins = remembered(CONFIG, "shell", "sh")
        assert options["system_tmpdirs"] == ["/var/tmp", "/tmp"] and len(options) == len(origins)
        options["system_tmpdirs"].append("/mine")
        options.clear()
        origins.clear()


def test_the_environment_is_looked_at_each_time(remembered: Callable[..., Any], monkeypatch: Any) -> None:
    assert remembered(CONFIG, "shell", "sh")[0]["remote_tmp"] == "~/.ansible/tmp"
    for value in ("/a", "/b"):
        monkeypatch.setenv("ANSIBLE_REMOTE_TMP", value)
        assert remembered(CONFIG, "shell", "sh")[0]["remote_tmp"] == value


def test_other_arguments_of_the_command_line_are_seen(remembered: Callable[..., Any], monkeypatch: Any) -> None:
    for value in ("-v", "-vv"):
        monkeypatch.setattr(context, "CLIARGS", CLIArgs({"ssh_common_args": value}))
        assert remembered(CONFIG, "connection", "ssh")[0]["ssh_common_args"] == value


def test_a_plugin_of_the_same_name_with_other_options_is_seen(remembered: Callable[..., Any], monkeypatch: Any) -> None:
    remembered(CONFIG, "shell", "sh")
    monkeypatch.setitem(CONFIG._plugins["shell"], "sh", {"of_mine": {"default": 3}})
    assert remembered(CONFIG, "shell", "sh")[0] == {"of_mine": 3}


def test_deprecated_options_are_reported_each_time(remembered: Callable[..., Any], monkeypatch: Any) -> None:
    old = {"why": "old", "alternatives": "none"}
    variables = {"mine": 1}
    defined = {
        "a": {"vars": [{"name": "mine", "deprecated": old}]},
        "b": {"deprecated": old, "keyword": [{"name": "k"}]},
    }
    monkeypatch.setitem(CONFIG._plugins["shell"], "sh", defined)
    monkeypatch.setattr(CONFIG, "DEPRECATED", [])
    for number in (1, 2, 3):
        remembered(CONFIG, "shell", "sh", keys={"k": "x"}, variables=variables)
        assert len(CONFIG.DEPRECATED) == 2 * number


def test_a_default_that_is_a_template_is_rendered_each_time(remembered: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setitem(CONFIG._plugins["shell"], "sh", {"a": {"default": "{{ other }}"}})
    found = [remembered(CONFIG, "shell", "sh", variables={"other": value})[0]["a"] for value in ("x", "y")]
    assert found == ["x", "y"]


def test_a_relative_path_belongs_to_the_directory_it_was_asked_in(
    remembered: Callable[..., Any], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setitem(CONFIG._plugins["shell"], "sh", {"a": {"type": "path", "vars": [{"name": "p"}]}})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert remembered(CONFIG, "shell", "sh", variables={"p": "x"})[0]["a"].endswith(f"{name}/x")


def test_errors_are_raised_each_time(remembered: Callable[..., Any]) -> None:
    for _call in range(2):
        with pytest.raises(Exception, match="invalid|Invalid"):
            remembered(CONFIG, "connection", "ssh", variables={"ansible_port": "many"})


def test_the_memory_does_not_grow_without_end(
    remembered: Callable[..., Any], asked: list[Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(plugin_options, "LIMIT", 10)
    for number in range(100):
        remembered(CONFIG, "shell", "sh", variables={"ansible_remote_tmp": f"/{number}"})
    memory = next(cell.cell_contents for cell in remembered.__closure__ if hasattr(cell.cell_contents, "plugin"))
    assert len(memory._plugins["shell", "sh"][1]) <= 11


def test_other_kinds_of_plugins_are_left_to_core(remembered: Callable[..., Any], asked: list[Any]) -> None:
    for _call in range(2):
        remembered(CONFIG, "lookup", "file")
    assert len(asked) == 2


def test_lists_of_variables_are_what_core_finds(monkeypatch: Any) -> None:
    searched: list[Any] = []
    functions = []
    for name in ("get_plugin_vars", "get_plugin_options_from_var"):
        core = vars(type(CONFIG))[name]

        def search(*arguments: Any, core: Any = core) -> Any:
            searched.append(arguments)
            return core(*arguments)

        functions.append((core, plugin_options.looking_up(search)))
    for changed in (False, True):
        if changed:
            monkeypatch.setitem(CONFIG._plugins["shell"], "sh", {"a": {"vars": [{"name": "ansible_port"}]}})
        for _round in range(3):
            for arguments in (("shell", "sh"), ("connection", "ssh"), ("connection", "nothing")):
                core, look_up = functions[0]
                found = look_up(CONFIG, *arguments)
                assert found == core(CONFIG, *arguments)
                found.append("x")
                core, look_up = functions[1]
                for variable in ("ansible_port", "ansible_user", "nothing"):
                    assert look_up(CONFIG, *arguments, variable) == core(CONFIG, *arguments, variable)
    # The shell's again after the change; a plugin without definitions each time.
    assert len([each for each in searched if each[2] != "nothing"]) == 2 * 4 + 4


# -- whereabouts


@pytest.fixture
def searches() -> list[str]:
    """Names core was asked about by `found`."""
    return []


@pytest.fixture
def found(searches: list[str]) -> Callable[..., Any]:
    def core(loader: Any, name: str, *arguments: Any) -> Any:
        searches.append(name)
        return FIND(loader, name, *arguments)

    return plugin_finding.remembering(core)


@pytest.mark.parametrize("name", ["debug", "ansible.builtin.debug", "ansible.legacy.debug"])
def test_a_plugin_of_core_is_searched_for_once(found: Callable[..., Any], searches: list[str], name: str) -> None:
    FIND(action_loader, name)
    # The first search of all notes the directories it has looked into.
    again = FIND(action_loader, name)
    assert again.resolved_fqcn == "ansible.builtin.debug"
    expected = vars(again)
    for _call in range(3):
        context = found(action_loader, name)
        assert context.resolved_fqcn == "ansible.builtin.debug" and vars(context) == expected
        # What a caller does to its context is its own affair.
        context.redirect_list.append("x")
        context.resolved = False
    assert searches == [name]


@pytest.mark.parametrize("name", ["ns.collection.nothing", "not.hing"])
def test_what_is_missing_elsewhere_is_searched_for_each_time(
    found: Callable[..., Any], searches: list[str], name: str
) -> None:
    assert [found(action_loader, name).resolved for _call in range(2)] == [False, False]
    assert searches == [name] * 2


@pytest.mark.parametrize("name", ["nothing", "ansible.legacy.nothing"])
def test_what_is_in_no_directory_is_searched_for_once_until_there_is_another(
    found: Callable[..., Any], searches: list[str], tmp_path: Path, name: str
) -> None:
    loader = PluginLoader("ActionModule", "ansible.plugins.action", "", "action_plugins")
    later = tmp_path / "later"
    loader.add_directory(str(tmp_path), with_subdir=False)
    loader._extra_dirs.append(str(later))
    expected = [vars(FIND(loader, name)) for _call in range(2)][1]
    assert [vars(found(loader, name)) for _call in range(3)] == [expected] * 3
    assert searches == [name]
    # A directory of the list comes into being; core looks into it, and so do we.
    later.mkdir()
    assert not found(loader, name).resolved and len(searches) == 2
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "nothing.py").write_text("")
    loader.add_directory(str(tmp_path / "more"))
    assert found(loader, name).plugin_resolved_path == str(tmp_path / "more" / "nothing.py")


def test_what_core_lacks_is_searched_for_once_until_its_directory_changes(
    found: Callable[..., Any], searches: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    name = "ansible.builtin.nothing"
    expected = vars(FIND(action_loader, name))
    assert [vars(found(action_loader, name)) for _call in range(3)] == [expected] * 3
    assert len(searches) == 1
    package = sys.modules["ansible_collections.ansible.builtin.plugins.action"]
    monkeypatch.setattr(package, "__file__", str(tmp_path / "__init__.py"))
    assert not found(action_loader, name).resolved
    time.sleep(0.02)
    (tmp_path / "nothing.py").write_text("")
    assert found(action_loader, name).plugin_resolved_path == str(tmp_path / "nothing.py")


def test_collections_of_a_task_are_searched_each_time(found: Callable[..., Any], searches: list[str]) -> None:
    for _call in range(2):
        found(action_loader, "debug", collection_list=["ansible.builtin"])
    assert len(searches) == 2


def test_a_plugin_of_a_directory_added_later_takes_the_place_of_cores(
    found: Callable[..., Any], tmp_path: Path
) -> None:
    loader = PluginLoader("ActionModule", "ansible.plugins.action", "", "action_plugins")
    before = found(loader, "debug"), found(loader, "ansible.builtin.debug")
    shutil.copy(before[0].plugin_resolved_path, tmp_path / "debug.py")
    loader.add_directory(str(tmp_path))
    assert found(loader, "debug").plugin_resolved_path == str(tmp_path / "debug.py")
    assert found(loader, "ansible.builtin.debug").plugin_resolved_path == before[1].plugin_resolved_path


def test_a_plugin_outside_of_core_is_searched_for_each_time(
    found: Callable[..., Any], searches: list[str], tmp_path: Path
) -> None:
    loader = PluginLoader("ActionModule", "ansible.plugins.action", "", "action_plugins")
    (tmp_path / "mine.py").write_text("")
    loader.add_directory(str(tmp_path))
    for _call in range(2):
        assert found(loader, "mine").resolved
    assert len(searches) == 2


# -- parser of ssh connections


def test_a_late_parser_parses_like_the_one_it_stands_for() -> None:
    def parsed(module: Any) -> Any:
        parser = module.ArgumentParser()
        parser.add_argument("-t", action="count")
        parser.add_argument("-o", action="append")
        return [parser.parse_known_args(each) for each in (["-tt", "-oA=b", "-x"], [], ["-o", "RequestTTY yes"])]

    assert parsed(LateArgparse(argparse)) == parsed(argparse)
    assert LateArgparse(argparse).ArgumentError is argparse.ArgumentError
