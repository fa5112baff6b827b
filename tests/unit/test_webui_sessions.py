"""Tokens, sessions and wrong guesses."""

from __future__ import annotations

import pytest

from highnoon.webui.sessions import SESSION_S, Doorman, Guesses, Role
from highnoon.webui.settings import Tokens

TOKENS = Tokens(operator="o" * 20, viewer="v" * 20)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_each_token_opens_its_role_and_no_other_opens_any() -> None:
    doorman = Doorman(TOKENS)

    assert doorman.role_of("o" * 20) is Role.OPERATOR
    assert doorman.role_of("v" * 20) is Role.VIEWER
    assert [doorman.role_of(wrong) for wrong in ("", "o" * 19, "o" * 21, "ö", "\udcff", "None")] == [None] * 6


def test_without_a_viewers_token_nothing_opens_that_role() -> None:
    doorman = Doorman(Tokens(operator="o" * 20))
    assert [doorman.role_of(wrong) for wrong in ("", "None")] == [None, None]


def test_an_open_door_takes_no_token() -> None:
    assert Doorman(None).is_open and Doorman(None).role_of("") is None


def test_a_session_carries_its_role_until_it_is_too_old() -> None:
    clock = Clock()
    doorman = Doorman(TOKENS, clock)
    session = doorman.new_session(Role.VIEWER)
    visitor = doorman.visitor(session)
    assert visitor is not None and not visitor.may_steer and visitor.csrf

    clock.now += SESSION_S + 1

    assert doorman.visitor(session) is None


def test_a_session_survives_a_restart_but_not_another_token() -> None:
    session = Doorman(TOKENS).new_session(Role.OPERATOR)

    assert Doorman(TOKENS).visitor(session) is not None
    assert Doorman(Tokens(operator="x" * 20)).visitor(session) is None
    assert Doorman(None).visitor(session) is None


@pytest.mark.parametrize("change", ["viewer>operator", "cut", "empty", "signature"])
def test_a_forged_session_is_nobody(change: str) -> None:
    doorman = Doorman(TOKENS)
    session = doorman.new_session(Role.VIEWER)
    forged = {
        "viewer>operator": session.replace("viewer", "operator"),
        "cut": session[:-1],
        "empty": "",
        "signature": session.rpartition(".")[0] + ".é",
    }[change]

    assert doorman.visitor(forged) is None


def test_two_sessions_have_two_form_tokens() -> None:
    doorman = Doorman(TOKENS)
    first, second = (doorman.visitor(doorman.new_session(Role.OPERATOR)) for _ in range(2))
    assert first is not None and second is not None and first.csrf != second.csrf


def test_a_few_wrong_guesses_close_the_door_for_a_minute_and_for_that_client_only() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(5):
        assert guesses.wait_s("mallory") == 0
        guesses.note_wrong("mallory")

    assert 0 < guesses.wait_s("mallory") <= 60 and guesses.wait_s("anna") == 0
    clock.now += 61
    assert guesses.wait_s("mallory") == 0


def test_many_clients_that_guess_close_the_door_for_all_and_cost_no_memory() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for client in range(50):
        guesses.note_wrong(f"10.0.0.{client}")
    assert guesses.wait_s("anna") > 0

    for client in range(5000):
        clock.now += 1
        guesses.note_wrong(f"client {client}")
    assert len(guesses._by_client) <= 1001
