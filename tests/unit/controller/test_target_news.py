# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What a forked worker learns of a target reaches its parent, and through it the next worker."""

from __future__ import annotations

import json
from typing import Any

from ansible_mitogen_svc.controller.target import LOGIN, Hello, Target

HELLO = Hello(0, "root", "/root", "/bin/sh", (3, 11, 2), "/usr/bin/python3", frozenset({"on disk"}))
OTHER = Hello(33, "www", "/var/www", "/bin/sh", (3, 11, 2), "/usr/bin/python3.11", frozenset())
NOBODY: Any = None


def target() -> Target:
    return Target(NOBODY, 7, "key", "ssh web1", HELLO, NOBODY)


def forked(parent: Target) -> Target:
    """The object that a worker makes, which the parent process forks now."""
    child = target()
    child.take_over(parent)
    return child


def send(child: Target, before: Target | None, parent: Target) -> int:
    """Hand over the news, as text, and tell how many there were."""
    news = json.loads(json.dumps(child.news(before)))
    parent.learn(news)
    return len(news)


def test_the_first_worker_tells_all_and_the_second_only_what_is_new() -> None:
    first, parent = target(), target()
    first.alias_zygote("root again", first.zygote(LOGIN), "/usr/bin/python3")
    first.add_zygote("www", 2, OTHER, "/usr/bin/python3.11").known.add("ping")
    first.zygote(LOGIN).known.add("command")
    assert send(first, None, parent) == 3
    assert parent.zygote(LOGIN).known == parent.zygote("root again").known == {"on disk", "command"}
    assert parent.zygote("www").number == 2 and parent.zygote("www").hello == OTHER

    second = forked(parent)
    assert second.zygote("www").known == {"ping"}
    assert second.news(parent) == []
    second.zygote("root again").known.add("copy")
    assert "copy" in second.zygote(LOGIN).known and "copy" not in parent.zygote(LOGIN).known
    assert send(second, parent, parent) == 2
    assert "copy" in parent.zygote(LOGIN).known and "copy" not in parent.zygote("www").known


def test_a_zygote_that_was_replaced_is_replaced_in_the_parent() -> None:
    parent = target()
    parent.add_zygote("www", 2, OTHER, "/usr/bin/python3.11").known.add("ping")
    child = forked(parent)
    child.forget_zygote(2)
    child.add_zygote("www", 3, OTHER, "/usr/bin/python3.11").known.add("copy")
    assert send(child, parent, parent) == 1
    assert parent.zygote("www").number == 3 and parent.zygote("www").known == {"copy"}


def test_news_of_a_zygote_that_the_parent_has_given_up_changes_nothing() -> None:
    parent = target()
    parent.add_zygote("www", 2, OTHER, "/usr/bin/python3.11")
    child, before = forked(parent), forked(parent)
    child.zygote("www").known.add("ping")
    parent.forget_zygote(2)
    assert send(child, before, parent) == 1
    assert parent.zygote("www") is None
