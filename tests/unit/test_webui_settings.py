"""Where a dashboard is open, and where a token comes from."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from highnoon.shared.domain.errors import InvalidInput
from highnoon.webui.settings import LOOPBACK_HOSTS, TOKEN_FILE, WebSettings, is_loopback, web_settings

LONG = "a-token-that-is-long-enough"


def settings(home: Path, host: str = "127.0.0.1", **environ: str) -> WebSettings:
    return web_settings(host=host, storage=None, environ={"HIGHNOON_HOME": str(home), **environ})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_loopback_is_open_and_writes_nothing(host: str, tmp_path: Path) -> None:
    result = settings(tmp_path / "home", host)

    assert result.tokens is None and result.hosts == LOOPBACK_HOSTS
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", "", "localhost.example.org"])
def test_everything_else_asks_for_a_token_that_is_kept(host: str, tmp_path: Path) -> None:
    first, second = settings(tmp_path, host).tokens, settings(tmp_path, host).tokens

    assert not is_loopback(host)
    assert first is not None and second is not None and first.operator == second.operator
    assert first.fresh and not second.fresh and len(first.operator) >= 32
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


def test_a_proxy_in_front_of_loopback_asks_for_a_token_too(tmp_path: Path) -> None:
    result = settings(tmp_path, HIGHNOON_WEBUI_HOSTS="hpo.example.org, other")

    assert result.tokens is not None and result.hosts == {"hpo.example.org", "other", *LOOPBACK_HOSTS}


def test_a_token_that_a_person_set_is_asked_for_everywhere_and_kept_nowhere(tmp_path: Path) -> None:
    result = settings(tmp_path, HIGHNOON_TOKEN=LONG)

    assert result.tokens is not None and result.tokens.operator == LONG and result.tokens.kept_in is None
    assert not (tmp_path / TOKEN_FILE).exists()


def test_bad_tokens_are_refused_together_and_never_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        settings(tmp_path, HIGHNOON_TOKEN="hunter2", HIGHNOON_WEBUI_VIEWER_TOKEN="short")

    assert len(refused.value.problems) == 2
    assert "hunter2" not in str(refused.value) and "short" not in str(refused.value)


def test_a_viewer_needs_another_token(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="equals HIGHNOON_TOKEN"):
        settings(tmp_path, HIGHNOON_TOKEN=LONG, HIGHNOON_WEBUI_VIEWER_TOKEN=LONG)


def test_a_storage_wins_over_the_environment(tmp_path: Path) -> None:
    result = web_settings(
        host="127.0.0.1",
        storage="sqlite:///hpo.db",
        environ={"HIGHNOON_HOME": str(tmp_path), "HIGHNOON_DATABASE_URL": "postgresql://u:p@h/d"},
    )
    assert result.database_url == "sqlite:///hpo.db"
