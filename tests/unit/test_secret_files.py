"""Secrets in files: into the address or the token, all mistakes at once, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.settings import load_settings
from highnoon.workers.node import without_secrets


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("p/w@1:#\n")
    return str(path)


@pytest.mark.parametrize(
    ("address", "whole"),
    [
        ("postgresql://worker@db:5432/highnoon", "postgresql+psycopg2://worker:p%2Fw%401%3A%23@db:5432/highnoon"),
        ("postgresql://worker@a,b/highnoon?sslmode=require", "://worker:p%2Fw%401%3A%23@a,b/highnoon?sslmode=require"),
    ],
)
def test_a_password_becomes_part_of_its_address(secret: str, address: str, whole: str) -> None:
    settings = load_settings({"HIGHNOON_DATABASE_URL": address, "HIGHNOON_DATABASE_PASSWORD_FILE": secret})
    assert settings.database_url is not None
    assert settings.database_url.endswith(whole)


def test_an_address_without_a_user_takes_a_password_too(secret: str) -> None:
    settings = load_settings({"HIGHNOON_REDIS_URL": "redis://redis:6379/0", "HIGHNOON_REDIS_PASSWORD_FILE": secret})
    assert settings.redis_url == "redis://:p%2Fw%401%3A%23@redis:6379/0"


def test_all_mistakes_are_named_and_no_secret_is_shown(tmp_path: Path, secret: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidInput) as caught:
        load_settings(
            {
                "HIGHNOON_DATABASE_URL": "postgresql://worker:other@db/highnoon",
                "HIGHNOON_DATABASE_PASSWORD_FILE": secret,
                "HIGHNOON_REDIS_PASSWORD_FILE": secret,
                "HIGHNOON_TOKEN_FILE": str(tmp_path / "nowhere"),
                "HIGHNOON_WEBUI_VIEWER_TOKEN_FILE": str(tmp_path / "empty"),
                "HIGHNOON_REDIS_PASSWORT_FILE": secret,
            }
        )
    said = {problem.key: str(problem) for problem in caught.value.problems}
    assert set(said) == {
        "HIGHNOON_DATABASE_PASSWORD_FILE",
        "HIGHNOON_REDIS_PASSWORD_FILE",
        "HIGHNOON_TOKEN_FILE",
        "HIGHNOON_WEBUI_VIEWER_TOKEN_FILE",
        "HIGHNOON_REDIS_PASSWORT_FILE",
    }
    assert "no address in HIGHNOON_REDIS_URL" in said["HIGHNOON_REDIS_PASSWORD_FILE"]
    assert "init-deploy" in said["HIGHNOON_TOKEN_FILE"]
    assert "Did you mean HIGHNOON_REDIS_PASSWORD_FILE?" in said["HIGHNOON_REDIS_PASSWORT_FILE"]
    assert "p/w" not in str(caught.value)


def test_no_trial_learns_where_the_files_are(secret: str) -> None:
    assert without_secrets({"HIGHNOON_REDIS_PASSWORD_FILE": secret, "PATH": "/bin"}) == {"PATH": "/bin"}
