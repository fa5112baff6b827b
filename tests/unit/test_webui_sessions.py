"""Tokens, sessions and wrong limiter."""

from __future__ import annotations

import pytest

from highnoon.webui.sessions import SESSION_S, Authenticator, LoginLimiter, Role
from highnoon.webui.settings import Tokens

TOKENS = Tokens(operator="o" * 20, viewer="v" * 20)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_each_token_has_its_role_and_wrong_tokens_have_none() -> None:
    authenticator = Authenticator(TOKENS)

    assert authenticator.role_of("o" * 20) is Role.OPERATOR
    assert authenticator.role_of("v" * 20) is Role.VIEWER
    assert [authenticator.role_of(wrong) for wrong in ("", "o" * 19, "o" * 21, "ö", "\udcff", "None")] == [None] * 6


def test_without_a_viewer_token_nothing_has_that_role() -> None:
    authenticator = Authenticator(Tokens(operator="o" * 20))
    assert [authenticator.role_of(wrong) for wrong in ("", "None")] == [None, None]


def test_without_tokens_it_is_open() -> None:
    assert Authenticator(None).is_open and Authenticator(None).role_of("") is None


def test_a_session_carries_its_role_until_it_is_too_old() -> None:
    clock = Clock()
    authenticator = Authenticator(TOKENS, clock)
    session = authenticator.new_session(Role.VIEWER)
    principal = authenticator.principal(session)
    assert principal is not None and not principal.may_steer and principal.csrf

    clock.now += SESSION_S + 1

    assert authenticator.principal(session) is None


def test_a_session_survives_a_restart_but_not_another_token() -> None:
    session = Authenticator(TOKENS).new_session(Role.OPERATOR)

    assert Authenticator(TOKENS).principal(session) is not None
    assert Authenticator(Tokens(operator="x" * 20)).principal(session) is None
    assert Authenticator(None).principal(session) is None


@pytest.mark.parametrize("change", ["viewer>operator", "cut", "empty", "signature"])
def test_a_forged_session_has_no_principal(change: str) -> None:
    authenticator = Authenticator(TOKENS)
    session = authenticator.new_session(Role.VIEWER)
    forged = {
        "viewer>operator": session.replace("viewer", "operator"),
        "cut": session[:-1],
        "empty": "",
        "signature": session.rpartition(".")[0] + ".é",
    }[change]

    assert authenticator.principal(forged) is None


def test_two_sessions_have_two_form_tokens() -> None:
    authenticator = Authenticator(TOKENS)
    first, second = (authenticator.principal(authenticator.new_session(Role.OPERATOR)) for _ in range(2))
    assert first is not None and second is not None and first.csrf != second.csrf


def test_a_few_wrong_tokens_block_that_client_for_a_minute() -> None:
    clock = Clock()
    limiter = LoginLimiter(clock)
    for _ in range(5):
        assert limiter.wait_s("mallory") == 0
        limiter.note_wrong("mallory")

    assert 0 < limiter.wait_s("mallory") <= 60 and limiter.wait_s("anna") == 0
    clock.now += 61
    assert limiter.wait_s("mallory") == 0


def test_wrong_tokens_of_many_clients_block_all_and_cost_no_memory() -> None:
    clock = Clock()
    limiter = LoginLimiter(clock)
    for client in range(50):
        limiter.note_wrong(f"10.0.0.{client}")
    assert limiter.wait_s("anna") > 0

    for client in range(5000):
        clock.now += 1
        limiter.note_wrong(f"client {client}")
    assert len(limiter._by_client) <= 1001
