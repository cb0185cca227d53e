# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which plugins are let into threads and into the main thread, and until when a task can be moved."""

from __future__ import annotations

import pytest

from ansible_mitogen_svc.controller.workers.kinds import WorkerKind
from ansible_mitogen_svc.controller.workers.plugin_policy import (
    Abandon,
    PluginTrust,
    TaskPolicy,
    action_made,
    policy_of_this_thread,
    trust_roots,
)

CORE = "/core/ansible/plugins"


def policy(kind: WorkerKind, *safe: str) -> TaskPolicy:
    trust = PluginTrust(trust_roots(["/core/ansible"]), frozenset(safe))
    return TaskPolicy(kind, trust, lambda name: name.rpartition(".")[2] in ("ssh", "local"))


def verdict(policy: TaskPolicy, plugin_type: str, name: str, path: str) -> tuple[WorkerKind, str] | None:
    try:
        policy.check(plugin_type, name, name, path)
    except Abandon as abandoned:
        return abandoned.kind, abandoned.reason
    return None


@pytest.mark.parametrize(
    ("plugin_type", "name", "path", "kind", "expected"),
    [
        ("lookup", "ansible.builtin.file", f"{CORE}/lookup/file.py", WorkerKind.INLINE, None),
        ("lookup", "ansible.builtin.password", f"{CORE}/lookup/password.py", WorkerKind.THREAD, None),
        (
            "lookup",
            "ansible.builtin.password",
            f"{CORE}/lookup/password.py",
            WorkerKind.INLINE,
            (WorkerKind.THREAD, "lookup:password"),
        ),
        ("lookup", "ansible.builtin.url", f"{CORE}/lookup/url.py", WorkerKind.THREAD, (WorkerKind.FORK, "lookup:url")),
        (
            "lookup",
            "ansible.builtin.pipe",
            f"{CORE}/lookup/pipe.py",
            WorkerKind.THREAD,
            (WorkerKind.FORK, "lookup:pipe"),
        ),
        ("lookup", "a.b.c", "/elsewhere/c.py", WorkerKind.THREAD, (WorkerKind.FORK, "lookup:a.b.c")),
        (
            "action",
            "local_one",
            "/play/action_plugins/local_one.py",
            WorkerKind.THREAD,
            (WorkerKind.FORK, "action:local_one"),
        ),
        (
            "become",
            "community.general.pmrun",
            "/x/pmrun.py",
            WorkerKind.THREAD,
            (WorkerKind.FORK, "become:community.general.pmrun"),
        ),
        (
            "connection",
            "winrm",
            f"{CORE}/connection/winrm.py",
            WorkerKind.THREAD,
            (WorkerKind.FORK, "connection:winrm"),
        ),
        ("connection", "ssh", f"{CORE}/connection/ssh.py", WorkerKind.THREAD, None),
        # A filter that cannot be read may keep something; this file, as a filter, keeps nothing.
        ("filter", "a.b.c", "/elsewhere/c.py", WorkerKind.THREAD, (WorkerKind.FORK, "filter:a.b.c")),
        ("filter", "a.b.c", __file__, WorkerKind.THREAD, None),
        ("test", "a.b.c", __file__, WorkerKind.INLINE, None),
        ("module", "a.b.c", "/elsewhere/c.py", WorkerKind.INLINE, None),
    ],
)
def test_each_kind_of_worker_takes_what_is_safe_in_it(plugin_type, name, path, kind, expected) -> None:
    assert verdict(policy(kind), plugin_type, name, path) == expected


@pytest.mark.parametrize("safe", ["a.b", "a.b.c"])
def test_users_vouch_for_plugins_and_for_collections(safe: str) -> None:
    assert verdict(policy(WorkerKind.THREAD, safe), "lookup", "a.b.c", "/elsewhere/c.py") is None


def test_plugins_beside_a_playbook_are_in_ansible_legacy() -> None:
    assert verdict(policy(WorkerKind.THREAD, "ansible.legacy"), "action", "mine", "/play/mine.py") is None
    assert verdict(policy(WorkerKind.THREAD, "ansible.legacy.mine"), "action", "mine", "/play/mine.py") is None


def test_a_file_that_only_starts_like_a_trusted_directory_is_not_trusted() -> None:
    assert verdict(policy(WorkerKind.THREAD), "lookup", "x", "/core/ansible_evil/x.py") is not None


def test_a_task_that_has_an_action_is_no_longer_moved() -> None:
    running = policy(WorkerKind.THREAD)
    with policy_of_this_thread(running):
        action_made()
    assert verdict(running, "lookup", "a.b.c", "/elsewhere/c.py") is None


class Computes:
    """An action. `asks`: what it does while it runs."""

    def __init__(self, name: str, asks=lambda: "result") -> None:
        self.ansible_name = name
        self.asks = asks

    def run(self, task_vars=None):
        return self.asks()


def test_a_task_that_only_computes_is_moved_until_its_action_has_run() -> None:
    running = policy(WorkerKind.INLINE)
    looks_up = lambda: running.check("lookup", "a.b.c", "a.b.c", "/elsewhere/c.py")  # noqa: E731
    with policy_of_this_thread(running):
        action = Computes("ansible.builtin.debug", looks_up)
        action_made(action)
        with pytest.raises(Abandon):
            action.run(task_vars={})
        assert not running.started
        action = Computes("ansible.builtin.debug")
        action_made(action)
        assert action.run(task_vars={}) == "result"
    assert running.started and "run" not in vars(action)


def test_a_task_whose_computing_action_has_failed_is_no_longer_moved() -> None:
    running = policy(WorkerKind.INLINE)
    with policy_of_this_thread(running):
        action = Computes("ansible.builtin.assert", lambda: 1 / 0)
        action_made(action)
        with pytest.raises(ZeroDivisionError):
            action.run()
    assert running.started


@pytest.mark.parametrize("name", ["ansible.builtin.command", "ansible.legacy.debug", "debug", "a.b.debug"])
def test_a_task_with_another_action_is_not_moved_once_that_is_made(name: str) -> None:
    running = policy(WorkerKind.INLINE)
    with policy_of_this_thread(running):
        action_made(Computes(name))
    assert running.started


def test_that_a_task_can_no_longer_be_moved_is_told_once() -> None:
    told: list[bool] = []
    mine = policy(WorkerKind.THREAD)
    mine.settle = lambda: told.append(mine.started)
    with policy_of_this_thread(mine):
        action_made()
        action_made()
    assert told == [True]
