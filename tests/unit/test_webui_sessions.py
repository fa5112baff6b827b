"""Tokens, sessions, and the limit on wrong tokens."""

from __future__ import annotations

import pytest

from highnoon.webui.sessions import SESSION_S, Authenticator, LoginLimiter
from highnoon.webui.settings import Role, TokenHolder, Tokens

OPERATOR = TokenHolder(name="operator", role=Role.OPERATOR, token="o" * 20)
VIEWER = TokenHolder(name="viewer", role=Role.VIEWER, token="v" * 20)
ANNA = TokenHolder(name="anna", role=Role.OPERATOR, token="a" * 20)
TOKENS = Tokens(holders=(OPERATOR, VIEWER, ANNA))


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_each_token_has_its_holder_and_wrong_tokens_have_none() -> None:
    authenticator = Authenticator(TOKENS)

    assert [authenticator.holder_of(letter * 20) for letter in "ova"] == [OPERATOR, VIEWER, ANNA]
    assert [authenticator.holder_of(wrong) for wrong in ("", "o" * 19, "o" * 21, "ö", "\udcff", "None")] == [None] * 6


def test_without_tokens_it_is_open() -> None:
    assert Authenticator(None).is_open and Authenticator(None).holder_of("") is None


def test_no_token_is_in_the_text_of_what_holds_it() -> None:
    assert "oooo" not in f"{TOKENS!r} {OPERATOR}"


def test_a_session_carries_its_role_until_it_is_too_old() -> None:
    clock = Clock()
    authenticator = Authenticator(TOKENS, clock)
    session = authenticator.new_session(VIEWER)
    principal = authenticator.principal(session)
    assert principal is not None and not principal.may_steer and principal.csrf

    clock.now += SESSION_S + 1

    assert authenticator.principal(session) is None


def test_a_session_survives_a_restart_but_not_another_token_of_its_holder() -> None:
    operator, anna = (Authenticator(TOKENS).new_session(holder) for holder in (OPERATOR, ANNA))
    assert Authenticator(TOKENS).principal(anna) is not None

    # Anna's token is replaced
    other = Authenticator(Tokens(holders=(OPERATOR, TokenHolder(name="anna", role=Role.OPERATOR, token="x" * 20))))
    assert other.principal(anna) is None
    # Then only hers ends
    assert other.principal(operator) is not None
    assert Authenticator(Tokens(holders=(OPERATOR,))).principal(anna) is None
    assert Authenticator(None).principal(anna) is None


def test_a_session_is_of_its_holder_and_has_the_role_that_it_has_now() -> None:
    session = Authenticator(TOKENS).new_session(ANNA)
    now = TokenHolder(name="anna", role=Role.VIEWER, token=ANNA.token)

    principal = Authenticator(Tokens(holders=(OPERATOR, now))).principal(session)

    assert principal is not None and (principal.name, principal.may_steer) == ("anna", False)


@pytest.mark.parametrize("change", ["viewer>operator", "cut", "empty", "signature", "surrogate"])
def test_a_forged_session_has_no_principal(change: str) -> None:
    authenticator = Authenticator(TOKENS)
    session = authenticator.new_session(VIEWER)
    forged = {
        "viewer>operator": session.replace("viewer", "operator"),
        "cut": session[:-1],
        "empty": "",
        "signature": session.rpartition(".")[0] + ".é",
        "surrogate": session.rpartition(".")[0] + ".\udcff",
    }[change]

    assert authenticator.principal(forged) is None


def test_two_sessions_have_two_form_tokens() -> None:
    authenticator = Authenticator(TOKENS)
    first, second = (authenticator.principal(authenticator.new_session(OPERATOR)) for _ in range(2))
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


def test_wrong_tokens_of_many_clients_block_no_other_and_cost_no_memory() -> None:
    clock = Clock()
    limiter = LoginLimiter(clock)
    for client in range(5000):
        limiter.note_wrong(f"client {client}")
    assert limiter.wait_s("anna") == 0
    assert len(limiter._by_client) <= 1000
