# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Shortcuts for core's functions give what core's functions give, and are installed for known sources only."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleError
from ansible.playbook.base import FieldAttributeBase
from ansible.playbook.block import Block
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.template import Templar, trust_as_template
from ansible.vars import manager as vars_manager

from ansible_mitogen_svc.controller.compat import caches

CORE = getattr(FieldAttributeBase.post_validate, "__wrapped__", FieldAttributeBase.post_validate)
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
]


def trusted(value):
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def validated(data, post_validate):
    """All attributes of a task after validation, or the error."""
    play = Play.load({"hosts": "all", "remote_user": "of the play"})
    block = Block(play=play)
    task = Task.load(trusted(data), block=block)
    task.squash()
    templar = Templar(loader=None, variables={"a": "x", "yes_text": "yes", "number": "22", "omit": "{{ omit }}"})
    try:
        # As Task.post_validate, without the parents.
        post_validate(task, templar._engine)
    except AnsibleError as error:
        return str(error)
    return {name: repr(getattr(task, name)) for name in task.fattributes if name != "loop_control"}


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_validating_a_task_gives_what_core_gives(number: int) -> None:
    assert validated(TASKS[number], caches._validating(CORE)) == validated(TASKS[number], CORE)


def test_containers_are_the_tasks_own_after_validation() -> None:
    task = Task.load({"action": "debug"}, block=Block(play=Play.load({"hosts": "all"})))
    task.squash()
    before = task.environment if isinstance(task.environment, list) else None
    caches._validating(CORE)(task, Templar(loader=None)._engine)
    if before is not None and task.environment is not None:
        assert task.environment is not before or not before


def test_cleaning_no_facts_gives_no_facts() -> None:
    assert caches._cleaning(lambda facts: 1 / 0)({}) == {}
    assert caches._cleaning(lambda facts: "core's")({"a": 1}) == "core's"


def test_this_core_is_one_the_shortcuts_were_compared_with(monkeypatch) -> None:
    monkeypatch.setattr(FieldAttributeBase, "post_validate", CORE)
    monkeypatch.setattr(vars_manager, "clean_facts", vars_manager.clean_facts)
    assert caches.install() == ["post_validate", "clean_facts"]


def test_a_function_with_another_source_is_left_alone(monkeypatch) -> None:
    def other(self, templar):
        """Not what we know."""

    monkeypatch.setattr(FieldAttributeBase, "post_validate", other)
    monkeypatch.setattr(vars_manager, "clean_facts", vars_manager.clean_facts)
    assert caches.install() == ["clean_facts"]
    assert FieldAttributeBase.post_validate is other
