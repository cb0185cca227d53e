# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Shortcuts for core's functions give what core's functions give, and are installed for known sources only."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import nullcontext as nothing
from typing import Any

import pytest
from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
from ansible._internal._templating._datatag import _JinjaConstTemplate
from ansible._internal._templating._engine import TemplateEngine, TemplateOptions
from ansible._internal._templating._jinja_bits import TemplateOverrides
from ansible._internal._templating._utils import TemplateContext
from ansible.errors import AnsibleError
from ansible.module_utils._internal._datatag import AnsibleTagHelper
from ansible.module_utils._internal._datatag._tags import Deprecated
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.attribute import FieldAttribute
from ansible.playbook.base import FieldAttributeBase
from ansible.playbook.block import Block
from ansible.playbook.play import Play
from ansible.playbook.play_context import PlayContext
from ansible.playbook.role import Role
from ansible.playbook.task import Task
from ansible.playbook.task_include import TaskInclude
from ansible.template import Templar, trust_as_template
from ansible.vars import manager as vars_manager

from ansible_mitogen_svc.controller.compat import caches, plain_strings, playbook_objects, variable_tags

TASKS = [
    {"action": "debug", "args": {"msg": "plain"}},
    {
        "action": "debug",
        "name": "{{ a }}",
        "become": "{{ yes_text }}",
        "become_user": "u{{ a }}",
        "tags": ["x", "{{ a }}"],
    },
    {
        "action": "command",
        "environment": [{"A": "{{ a }}"}],
        "retries": "3",
        "delay": 0,
        "until": ["x"],
        "register": "r",
    },
    {"action": "command", "no_log": "yes", "ignore_errors": "{{ yes_text }}", "throttle": "2", "port": "{{ number }}"},
    {"action": "command", "notify": ["{{ a }}", "b"], "when": ["a == 'x'"], "delegate_to": "{{ a }}", "timeout": 0},
    {"action": "command", "connection": "#jinja2: trim_blocks:True\nssh", "remote_user": "{{ omit }}"},
    {"action": "command", "loop": "{{ [1] }}", "loop_control": {"label": "{{ item }}"}, "vars": {"v": "{{ a }}"}},
    {"action": "command", "port": "{{ undefined_name }}"},
    {"action": "command", "throttle": "many"},
    {"action": "command", "name": "plain", "changed_when": False, "failed_when": ["a", "b"], "async": 3, "poll": 0},
    {"action": "command", "name": "{{ undefined_name }}", "collections": ["{{ a }}.b"], "tags": []},
]
#: Values of blocks, from the outermost, above a task.
PARENTS: list[list[dict[str, Any]]] = [
    [{}],
    [{"become": True, "tags": ["outer"], "vars": {"a": 1}, "environment": [{"B": "b"}]}],
    [{"remote_user": "outer", "when": ["c"], "no_log": True}, {"remote_user": "inner", "tags": ["inner"]}],
    [{"check_mode": "{{ yes_text }}", "delegate_to": "{{ a }}"}, {}, {"name": "{{ a }}", "throttle": 1}],
]
TEMPLATE = TemplateEngine.template
#: Not so 2.19.
TAGS_VARIABLES = hasattr(vars_manager, "_DEPRECATE_VARS")
NAMES = ("post_validate", "copy", "squash", "dump_attrs")


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Core's own functions; whatever a test puts in their place is undone."""
    functions = {name: vars(FieldAttributeBase)[name] for name in NAMES}
    for name, function in functions.items():
        assert function.__module__ == "ansible.playbook.base"
        monkeypatch.setattr(FieldAttributeBase, name, function)
    functions["__get__"] = vars(FieldAttribute)["__get__"]
    monkeypatch.setattr(FieldAttribute, "__get__", functions["__get__"])
    return functions


def shortcuts(core: dict[str, Any]) -> None:
    """Replace core's functions."""
    FieldAttributeBase.post_validate = playbook_objects.validating(core["post_validate"])
    FieldAttributeBase.copy = playbook_objects.copying(core["copy"])
    FieldAttributeBase.squash = playbook_objects.squashing(core["squash"])
    FieldAttributeBase.dump_attrs = playbook_objects.dumping(core["dump_attrs"])
    FieldAttribute.__get__ = playbook_objects.reading(core["__get__"])


def trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def block_of(parents: list[dict[str, Any]], role: Role | None = None) -> Any:
    play = Play().load({"name": "p", "hosts": "all", "remote_user": "of the play", "environment": [{"P": "p"}]})
    block = None
    for values in parents:
        above, block = block, Block(play=play, parent_block=block, role=role)
        for name, value in trusted(values).items():
            setattr(block, name, value)
        assert block._parent is above
    return block


def templar() -> Any:
    variables = {"a": "x", "yes_text": "yes", "number": "22", "omit": "{{ omit }}"}
    return Templar(loader=DataLoader(), variables=variables)._engine


def shown(item: Any) -> Any:
    """Everything an object holds or answers, with names of parents for the parents."""
    fields = {name: getattr(item, name) for name in item.fattributes}
    others = {name: value for name, value in vars(item).items() if name[1:] not in fields}
    values = {}
    for name, value in {**others, **fields}.items():
        if name == "loop_control":
            values[name] = shown(value)
        elif isinstance(value, FieldAttributeBase):
            values[name] = type(value).__name__
        elif name not in ("_uuid", "_loader"):
            values[name] = repr(value)
    return dict(sorted(values.items()))


def life(data: dict[str, Any], parents: list[dict[str, Any]], role: Role | None = None, kind: type = Task) -> list[Any]:
    """What becomes of a task on its way through a worker."""
    task = kind.load(trusted(data), block=block_of(parents, role))
    found = [task.dump_attrs()]
    copied = task.copy(exclude_parent=True, exclude_tasks=True)
    found.append(shown(copied))
    copied._parent = task._parent
    copied.squash()
    found += [shown(copied), copied.dump_attrs()]
    try:
        copied._parent.post_validate(templar())
        # As Task.post_validate, without the plugins that its arguments need.
        FieldAttributeBase.post_validate(copied, templar())
    except AnsibleError as error:
        found.append(str(error))
    found += [shown(copied), copied.dump_attrs(), shown(copied._parent), shown(copied.copy())]
    return [repr(each) for each in found]


@pytest.fixture(autouse=True)
def comparable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks here name actions for their form only, and are as unique as need be."""
    monkeypatch.setattr(Task, "_post_validate_args", lambda self, attr, value, templar: value)
    monkeypatch.setattr("ansible.playbook.base.get_unique_id", lambda: "unique")
    playbook_objects._plans.clear()


@pytest.mark.parametrize("number,parents", list(itertools.product(range(len(TASKS)), range(len(PARENTS)))))
def test_a_task_becomes_what_core_makes_of_it(core: dict[str, Any], number: int, parents: int) -> None:
    expected = life(TASKS[number], PARENTS[parents])
    shortcuts(core)
    assert life(TASKS[number], PARENTS[parents]) == expected


@pytest.mark.parametrize("dependencies", [None, [], ["another"]])
def test_a_task_of_a_role_becomes_what_core_makes_of_it(core: dict[str, Any], dependencies: list[str] | None) -> None:
    def in_role() -> list[Any]:
        role, other = Role(), Role()
        role._become, other._remote_user, other._tags = True, "of another role", ["other"]
        block = block_of([{}], role)
        block._dep_chain = None if dependencies is None else [other for _name in dependencies]
        task = Task.load({"action": "debug"}, block=block)
        task.squash()
        return [repr(shown(task))]

    expected = in_role()
    shortcuts(core)
    assert in_role() == expected


def test_an_include_becomes_what_core_makes_of_it(core: dict[str, Any]) -> None:
    data = {"action": "include_tasks", "args": {"_raw_params": "a"}, "vars": {"x": "{{ a }}"}}
    expected = life(data, PARENTS[2], kind=TaskInclude)
    shortcuts(core)
    assert life(data, PARENTS[2], kind=TaskInclude) == expected


@pytest.mark.parametrize("static", [True, False])
def test_a_task_below_an_include_becomes_what_core_makes_of_it(core: dict[str, Any], static: bool) -> None:
    def below() -> list[Any]:
        include = TaskInclude.load(
            {"action": "include_tasks", "args": {"_raw_params": "a"}}, block=block_of(PARENTS[1])
        )
        include.statically_loaded, include._remote_user = static, "of the include"
        task = Task.load({"action": "debug"}, block=Block(play=include._parent._play, task_include=include))
        task.squash()
        return [repr(shown(task))]

    expected = below()
    shortcuts(core)
    assert below() == expected


def test_a_play_context_becomes_what_core_makes_of_it(core: dict[str, Any]) -> None:
    def made() -> list[Any]:
        context = PlayContext(passwords={"conn_pass": "a"})
        context.remote_addr, context.port, context.become = trust_as_template("{{ a }}"), "22", "yes"
        context._become_plugin, context.success_key = "sudo", "key"
        copied = context.copy()
        copied.post_validate(templar())
        return [repr(shown(each)) for each in (context, copied, copied.copy())] + [copied.dump_attrs()]

    expected = made()
    shortcuts(core)
    assert made() == expected


def test_containers_of_a_copy_are_its_own(core: dict[str, Any]) -> None:
    shortcuts(core)
    task = Task.load({"action": "debug", "args": {"a": 1}, "notify": ["x"]}, block=block_of([{}]))
    copied = task.copy()
    copied.args["a"] = 2
    copied.notify.append("y")
    assert task.args == {"a": 1} and task.notify == ["x"]


def test_containers_are_the_tasks_own_after_validation(core: dict[str, Any]) -> None:
    shortcuts(core)
    task = Task.load({"action": "debug", "notify": []}, block=block_of([{}]))
    task.squash()
    before = task.notify
    FieldAttributeBase.post_validate(task, templar())
    assert task.notify == [] and task.notify is not before


@pytest.mark.parametrize(
    "change",
    [
        {"_get_attr_become": lambda self: True},
        {"_become": "a default of the class"},
        {"become": property(lambda self: True)},
        {"__setattr__": lambda self, name, value: object.__setattr__(self, name, value)},
    ],
    ids=["getter", "class", "property", "setter"],
)
def test_a_class_with_fields_of_another_kind_is_left_to_core(change: dict[str, Any]) -> None:
    assert playbook_objects.plan_of(Task) is not None
    assert playbook_objects.plan_of(type("Other", (Task,), change)) is None


def test_fields_of_classes_and_of_unfinished_objects_are_read_as_core_reads_them(core: dict[str, Any]) -> None:
    def read() -> list[Any]:
        task, context = Task.load({"action": "debug"}, block=block_of(PARENTS[1])), PlayContext()
        context.connection = "ssh"
        return [Task.become, task.become, task.remote_user, PlayContext.connection, context.connection, context.become]

    expected = read()
    shortcuts(core)
    assert read() == expected


VALUES = [
    "plain",
    "",
    "{{ a }}",
    "{% if a %}y{% endif %}",
    "{# nothing #}x",
    "{ a }",
    "#jinja2: variable_start_string:'[['\n[[ a ]]",
    "a: {{ undefined_name }}",
    *(None, 1, True, 1.5, [], ["{{ a }}", "b"], {"{{ a }}": "b"}),
]


@pytest.mark.parametrize("tags", [(), (TrustedAsTemplate(),), (Origin(description="x"),), (_JinjaConstTemplate(),)])
@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("nested", [False, True])
def test_a_value_is_templated_as_core_does(value: Any, tags: Any, nested: bool) -> None:
    def outcome(template: Any) -> Any:
        engine = templar()
        try:
            with (
                TemplateContext(template_value="", templar=engine, options=TemplateOptions.DEFAULT)
                if nested
                else nothing()
            ):
                found = template(engine, tagged)
                chosen = template(engine, tagged, options=TemplateOptions(overrides=brackets))
            return [
                (repr(each), type(each), sorted(map(repr, AnsibleTagHelper.tags(each)))) for each in (found, chosen)
            ]
        except Exception as error:
            return type(error), str(error)

    brackets = TemplateOverrides(variable_start_string="[[", variable_end_string="]]")
    tagged = AnsibleTagHelper.try_tag(value, tags)
    assert outcome(plain_strings.passing_on(TEMPLATE)) == outcome(TEMPLATE)
    bracketed = AnsibleTagHelper.tag("[[ a ]]", (TrustedAsTemplate(),))
    options = TemplateOptions(overrides=brackets)
    assert plain_strings.passing_on(TEMPLATE)(templar(), bracketed, options=options) == "x"


def test_a_deprecated_value_goes_through_core() -> None:
    seen: list[Any] = []
    template = plain_strings.passing_on(lambda engine, value, **keywords: seen.append(value))
    old = AnsibleTagHelper.tag("plain", (Deprecated(msg="old"), Origin(description="x")))
    template(templar(), old)
    assert seen == [old]


def test_a_deep_copy_of_a_tagged_string_keeps_its_tags(undone: pytest.MonkeyPatch) -> None:
    caches.install()
    value = {"a": [AnsibleTagHelper.tag("x", (Origin(description="y"),))], "b": {"c": 1}}
    copied = copy.deepcopy(value)
    assert copied == value and AnsibleTagHelper.tags(copied["a"][0]) == AnsibleTagHelper.tags(value["a"][0])
    assert copied["a"] is not value["a"] and copied["b"] is not value["b"]


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Whatever is installed during a test is not, after it."""
    for shortcut in caches.SHORTCUTS:
        owner = caches._find(shortcut.owner)
        monkeypatch.setattr(owner, shortcut.name, getattr(owner, shortcut.name, None), raising=False)
    yield monkeypatch


def test_this_core_is_one_the_shortcuts_were_compared_with(undone: pytest.MonkeyPatch) -> None:
    names = [each.name for each in caches.SHORTCUTS]
    assert caches.install() == [name for name in names if TAGS_VARIABLES or not name.startswith("_DEPRECATE_")]


@pytest.mark.parametrize(
    ("place", "module"),
    [
        ("ansible.vars.manager:clean_facts", "fact_cleaning"),
        ("ansible.utils.vars:transform_to_native_types", "native_values"),
        ("ansible.config.manager:ConfigManager.get_config_value_and_origin", "base_settings"),
    ],
)
def test_what_core_does_for_each_task_is_in_its_place(undone: pytest.MonkeyPatch, place: str, module: str) -> None:
    caches.install()
    assert caches._find(place).__module__.rpartition(".")[2] == module


@pytest.mark.skipif(not TAGS_VARIABLES, reason="2.19 puts no tags on variables")
def test_the_tags_of_variables_are_remembered(undone: pytest.MonkeyPatch) -> None:
    caches.install()
    for tag in (vars_manager._DEPRECATE_VARS, vars_manager._DEPRECATE_TOP_LEVEL_FACT_TAG):
        assert isinstance(tag, variable_tags.RememberingTag)


def test_shortcuts_are_not_installed_twice(undone: pytest.MonkeyPatch) -> None:
    caches.install()
    installed = FieldAttributeBase.post_validate
    assert "post_validate" not in caches.install()
    assert FieldAttributeBase.post_validate is installed


def test_a_function_with_another_source_is_left_alone(undone: pytest.MonkeyPatch) -> None:
    def other(self: Any, templar: Any) -> None:
        """Not what we know."""

    undone.setattr(FieldAttributeBase, "post_validate", other)
    assert "post_validate" not in caches.install()
    assert FieldAttributeBase.post_validate is other


def test_a_function_is_left_alone_when_one_that_it_uses_is_another(undone: pytest.MonkeyPatch) -> None:
    undone.setattr(FieldAttributeBase, "get_validated_value", lambda *arguments: None)
    assert "post_validate" not in caches.install()


def test_a_core_that_lacks_a_function_is_no_error(undone: pytest.MonkeyPatch) -> None:
    undone.delattr(FieldAttributeBase, "dump_attrs")
    undone.delattr(vars_manager, "clean_facts")
    undone.delattr("ansible.vars.clean.clean_facts")
    installed = caches.install()
    assert "copy" in installed and not {"dump_attrs", "clean_facts"} & set(installed)
