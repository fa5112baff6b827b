"""Where a dashboard is open, and where a token comes from."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from highnoon.shared.domain.errors import InvalidInput
from highnoon.webui.settings import (
    LOOPBACK_HOSTS,
    TOKEN_FILE,
    Role,
    WebSettings,
    is_loopback,
    listening_at,
    web_settings,
)

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
    assert first is not None and second is not None and first.holders == second.holders
    assert first.fresh == first.holders[0].token and second.fresh is None and len(first.holders[0].token) >= 32
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


def test_a_database_that_is_a_missing_file_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="storage: there is no such file") as refused:
        web_settings(host="127.0.0.1", storage=f"sqlite:///{tmp_path}/slip.db", environ={})

    assert refused.value.problems[0].value == f"sqlite:///{tmp_path}/slip.db"
    assert not (tmp_path / "slip.db").exists()


def test_a_proxy_in_front_of_loopback_asks_for_a_token_too(tmp_path: Path) -> None:
    result = settings(tmp_path, HIGHNOON_WEBUI_HOSTS="hpo.example.org, other")

    assert result.tokens is not None and result.hosts == {"hpo.example.org", "other", *LOOPBACK_HOSTS}


def test_names_of_hosts_are_compared_as_a_host_header_is(tmp_path: Path) -> None:
    result = settings(tmp_path, HIGHNOON_WEBUI_HOSTS="HPO.Example.org:8443,[2001:DB8::7]")
    assert result.hosts == {"hpo.example.org", "[2001:db8::7]", *LOOPBACK_HOSTS}

    with pytest.raises(InvalidInput) as refused:
        settings(tmp_path, HIGHNOON_WEBUI_HOSTS="https://hpo.example.org,other,2001:db8::7")
    assert [(problem.key, problem.value) for problem in refused.value.problems] == [
        ("HIGHNOON_WEBUI_HOSTS", "https://hpo.example.org"), ("HIGHNOON_WEBUI_HOSTS", "2001:db8::7"),
    ]  # fmt: skip


def test_arguments_and_then_the_environment_name_where_it_listens() -> None:
    environ = {"HIGHNOON_WEBUI_HOST": "0.0.0.0", "HIGHNOON_WEBUI_PORT": "9000"}
    assert listening_at(None, None, {}) == ("127.0.0.1", 8000)
    assert listening_at(None, None, environ) == ("0.0.0.0", 9000)
    assert listening_at("::1", 0, environ) == ("::1", 0)
    service = {"HIGHNOON_WEBUI_PORT": "tcp://10.0.0.1:80"}  # set by Kubernetes
    assert listening_at(None, None, service) == ("127.0.0.1", 8000)
    for port in ("0", "65536", "http://10.0.0.1:8000"):
        with pytest.raises(InvalidInput, match="HIGHNOON_WEBUI_PORT"):
            listening_at(None, None, {"HIGHNOON_WEBUI_PORT": port})


def test_a_token_that_a_person_set_is_asked_for_everywhere_and_kept_nowhere(tmp_path: Path) -> None:
    result = settings(tmp_path, HIGHNOON_TOKEN=LONG)

    assert (
        result.tokens is not None
        and [held.token for held in result.tokens.holders] == [LONG]
        and result.tokens.kept_in is None
    )
    assert not (tmp_path / TOKEN_FILE).exists()


def test_bad_tokens_are_refused_together_and_never_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        settings(tmp_path, HIGHNOON_TOKEN="hunter2", HIGHNOON_WEBUI_VIEWER_TOKEN="short")

    assert len(refused.value.problems) == 2
    assert "hunter2" not in str(refused.value) and "short" not in str(refused.value)


def test_a_viewer_needs_another_token(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="equals HIGHNOON_TOKEN"):
        settings(tmp_path, HIGHNOON_TOKEN=LONG, HIGHNOON_WEBUI_VIEWER_TOKEN=LONG)


def test_named_tokens_are_read_from_a_file_of_lines(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"anna:operator:{LONG}-1\nben:viewer:{LONG}:2\n\n")

    tokens = settings(tmp_path, HIGHNOON_WEBUI_TOKENS_FILE=str(file)).tokens

    assert tokens is not None and tokens.kept_in is None
    assert [(held.name, held.role, held.token) for held in tokens.holders] == [
        ("anna", Role.OPERATOR, f"{LONG}-1"), ("ben", Role.VIEWER, f"{LONG}:2"),
    ]  # fmt: skip


def test_viewers_alone_get_an_operator_token_beside_theirs(tmp_path: Path) -> None:
    tokens = settings(tmp_path, HIGHNOON_WEBUI_TOKENS=f"ben:viewer:{LONG}").tokens
    assert tokens is not None and [held.name for held in tokens.holders] == ["operator", "ben"]
    assert tokens.kept_in == tmp_path / TOKEN_FILE


def test_mistakes_in_named_tokens_are_refused_together(tmp_path: Path) -> None:
    entries = (
        f"anna:operator:{LONG},anna:viewer:{LONG}-2,ben:admin:{LONG}-3,c d:viewer:{LONG}-4,eve:viewer:{LONG},x:viewer"
    )
    with pytest.raises(InvalidInput) as refused:
        settings(
            tmp_path, HIGHNOON_WEBUI_TOKENS=f"{entries},kim:viewer:short,operator:viewer:{LONG}-5", HIGHNOON_TOKEN=LONG
        )

    text = str(refused.value)
    assert len(refused.value.problems) == 9, text
    for part in ("entry 3", "entry 4", "entry 6", "equals HIGHNOON_TOKEN", "name of another token", "(kim)"):
        assert part in text
    assert LONG not in text and "short" not in text


@pytest.mark.parametrize("trusted", ["", "*", "127.0.0.1", "10.42.0.0/16, fd00::/8,::1", "10.0.0.7,"])
def test_addresses_and_networks_of_proxies_are_taken(tmp_path: Path, trusted: str) -> None:
    settings(tmp_path, FORWARDED_ALLOW_IPS=trusted)


@pytest.mark.parametrize(
    ("trusted", "wrong"),
    [
        ("10.42.0.1/16", ["10.42.0.1/16"]),
        ("10.0.0.7 10.0.0.8", ["10.0.0.7 10.0.0.8"]),
        ("127.0.0.1,*", ["*"]),
        (" *", ["*"]),
        ("proxy.example.org, 10.0.0.300,10.0.0.7:80", ["proxy.example.org", "10.0.0.300", "10.0.0.7:80"]),
    ],
)
def test_entries_of_proxies_that_uvicorn_would_ignore_are_refused(
    tmp_path: Path, trusted: str, wrong: list[str]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        settings(tmp_path, FORWARDED_ALLOW_IPS=trusted, HIGHNOON_WEBUI_FLOWER_URL="x")
    found = [(problem.key, problem.value) for problem in refused.value.problems]
    assert found[:-1] == [("FORWARDED_ALLOW_IPS", entry) for entry in wrong]
    assert found[-1] == ("HIGHNOON_WEBUI_FLOWER_URL", "x"), "with the other mistakes"


def test_a_storage_wins_over_the_environment(tmp_path: Path) -> None:
    result = web_settings(
        host="127.0.0.1",
        storage="postgresql://u:p@other/d",
        environ={"HIGHNOON_HOME": str(tmp_path), "HIGHNOON_DATABASE_URL": "postgresql://u:p@h/d"},
    )
    assert result.database_url == "postgresql+psycopg2://u:p@other/d"
