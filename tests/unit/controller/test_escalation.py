# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The talk with become commands, with core's own become plugins; real sudo and su are in the integration targets."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.plugins.loader import become_loader, init_plugin_loader, shell_loader

from ansible_mitogen_svc.controller.escalation import Escalation, EscalationRefused, Refusal


@pytest.fixture(scope="module", autouse=True)
def loaders() -> None:
    init_plugin_loader()


def become(name: str, password: str | None) -> Any:
    plugin = become_loader.get(name)
    plugin.set_options(direct={"become_user": "root", "become_pass": password})
    shell = shell_loader.get("sh")
    shell.set_options()
    plugin.build_become_command("true", shell)
    return plugin


def test_without_a_password_the_marker_alone_is_success() -> None:
    sudo = become("sudo", None)
    talk = Escalation(sudo)
    assert talk.hear(b"", b"some lecture\n") == b""
    assert not talk.succeeded
    assert talk.hear(sudo.success.encode() + b"\n", b"") == b""
    assert talk.succeeded


def test_a_prompt_that_arrives_in_pieces_is_answered_once() -> None:
    sudo = become("sudo", "pa ss")
    talk = Escalation(sudo)
    prompt = sudo.prompt.encode()
    assert talk.hear(b"", prompt[:9]) == b""
    assert talk.hear(b"", prompt[9:]) == b"pa ss\n"
    assert talk.hear(sudo.success.encode() + b"\n", b"") == b""
    assert talk.succeeded


def test_a_localized_su_prompt_is_answered() -> None:
    su = become("su", "secret")
    assert Escalation(su).hear(b"", b"Passwort: ") == b"secret\n"


@pytest.mark.parametrize(
    ("said", "refusal"),
    [(b"Sorry, try again.\n", Refusal.INCORRECT), (b"sudo: a password is required\n", Refusal.MISSING)],
)
def test_the_plugins_own_texts_tell_why_it_refused(said: bytes, refusal: Refusal) -> None:
    with pytest.raises(EscalationRefused) as caught:
        Escalation(become("sudo", None)).hear(b"", said)
    assert caught.value.refusal is refusal
    assert said in caught.value.stderr


def test_a_repeated_prompt_means_that_the_password_was_wrong() -> None:
    sudo = become("sudo", "wrong")
    talk = Escalation(sudo)
    assert talk.hear(b"", sudo.prompt.encode()) == b"wrong\n"
    with pytest.raises(EscalationRefused) as caught:
        talk.hear(b"", b"\n" + sudo.prompt.encode())
    assert caught.value.refusal is Refusal.INCORRECT


def test_the_password_is_in_no_error() -> None:
    sudo = become("sudo", "do-not-show")
    talk = Escalation(sudo)
    talk.hear(b"", sudo.prompt.encode())
    refused = talk.timed_out()
    assert "do-not-show" not in repr(refused) + str(refused) + repr(vars(refused))


def test_output_of_a_command_that_ended_without_becoming_is_kept() -> None:
    talk = Escalation(become("sudo", None))
    talk.hear(b"out\n", b"sudo: unknown user: nosuch\nno newline")
    assert talk.closed() == (b"out\n", b"sudo: unknown user: nosuch\nno newline")


def test_before_a_prompt_that_the_plugin_announces_a_refusal_is_left_to_end_by_itself() -> None:
    # as core's ssh plugin does: a su without a password that says so is a result, not an error of its own kind
    su = become("su", None)
    talk = Escalation(su)
    assert talk.hear(b"su: Authentication failure\r\n", b"") == b""
    assert talk.closed() == (b"su: Authentication failure\r\n", b"")
