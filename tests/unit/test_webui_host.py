"""The Host header: an invalid one is refused, and none replaces a token."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from highnoon.webui.application import create
from highnoon.webui.authentication import ANONYMOUS_PATHS
from highnoon.webui.settings import web_settings

CREATE = ("POST", "/api/hpo/studies")
LIST = ("GET", "/api/hpo/studies")
DELETE = ("DELETE", "/api/hpo/studies/digits")
PAGE = ("GET", "/hpo")
HOSTS_LIKE_PUBLIC_PATHS = [f"x{path}{end}" for path in sorted(ANONYMOUS_PATHS) for end in ("?", "#")]
"""Some versions of Starlette take what follows the first slash for the path of the request."""


@pytest.fixture
def asgi(tmp_path: Path) -> ASGIApp:
    """A dashboard that others can reach, by any name. No database answers it."""
    environ = {"HIGHNOON_HOME": str(tmp_path), "HIGHNOON_TOKEN": "operator-token-of-the-tests"}
    settings = web_settings(host="0.0.0.0", storage=None, environ=environ)
    assert settings.hosts == frozenset()
    return create(settings, database=lambda: "sqlite:///never.db", port=0).asgi


def answer_of(asgi: ASGIApp, method: str, path: str, host: str | None) -> tuple[int, str]:
    """Status and body, without a credential."""
    named = [] if host is None else [(b"host", host.encode("latin-1"))]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [*named, (b"sec-fetch-site", b"same-origin")],
        "client": ("10.0.0.7", 4000),
        "server": ("10.0.0.1", 8000),
    }
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asgi(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


@pytest.mark.parametrize("host", HOSTS_LIKE_PUBLIC_PATHS)
@pytest.mark.parametrize(("method", "path"), [LIST, CREATE, DELETE, PAGE])
def test_host_header_like_a_public_path_is_refused(asgi: ASGIApp, method: str, path: str, host: str) -> None:
    status, body = answer_of(asgi, method, path, host)

    assert status == 400 and f"(got '{host}')" in body, (status, body)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a?b", "a#b", "a\\b", "u@a", "a,b", "ä", "[::1", "a:b", "::1"])
def test_what_cannot_be_a_host_is_refused(asgi: ASGIApp, host: str) -> None:
    for path in ("/api/hpo/studies", "/health"):
        status, body = answer_of(asgi, "GET", path, host)
        assert status == 400 and "The Host header must be a name or an address" in body, (status, body)


@pytest.mark.parametrize(
    "host", [None, "localhost", "Node_1.example.org:8000", "10.0.0.1:8000", "[::1]", "[2001:db8::7]:8000"]
)
def test_any_host_is_taken_where_none_is_configured(asgi: ASGIApp, host: str | None) -> None:
    """Health checks of HTTP/1.0 name none."""
    assert answer_of(asgi, "GET", "/health", host) == (200, '{"status":"ok"}')
    assert answer_of(asgi, *LIST, host)[0] == 401
