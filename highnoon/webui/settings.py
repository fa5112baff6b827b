"""The settings of the dashboard: where the studies are, who may log in, which objectives a form may start.

Read once at the start, beside the settings that every process has (`shared.runtime.settings`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.runtime.secret_files import SHORTEST_TOKEN, kept_token, with_secret_files
from highnoon.shared.runtime.settings import Settings, load_settings
from highnoon.shared.runtime.urls import is_loopback, normalise

TOKEN_FILE = "webui-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The operator's token, and one that only allows reading."""

    operator: str
    viewer: str | None = None
    kept_in: Path | None = None
    """Where a token that we made is kept; None for one that a person set."""
    fresh: bool = False
    """Created now: to be shown once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Without `tokens` the dashboard is open, which is allowed on loopback only."""

    home: Path
    database_url: str | None
    tokens: Tokens | None
    hosts: frozenset[str]
    """Allowed values of the Host header; empty: any (a token protects it)."""
    objectives: tuple[str, ...]
    silent_s: float
    """A worker that was not seen for so long is not shown any more."""
    flower_url: str | None
    """Where a browser finds Flower; None where it is not set."""


LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def web_settings(
    *, host: str, storage: str | None, environ: Mapping[str, str] | None = None, settings: Settings | None = None
) -> WebSettings:
    """Reads the environment. Raises InvalidInput with all mistakes; makes a token where one is needed and none is."""
    environ = os.environ if environ is None else environ
    general = load_settings(environ) if settings is None else settings
    environ, problems = with_secret_files(environ)
    problems += [*_token_problems(environ), *_flower_problems(environ)]
    if problems:
        raise InvalidInput("settings", problems)
    named = frozenset(filter(None, map(str.strip, environ.get("HIGHNOON_WEBUI_HOSTS", "").split(","))))
    alone = is_loopback(host) and not named
    return WebSettings(
        home=general.home,
        database_url=normalise(storage) if storage is not None else general.database_url,
        tokens=_tokens(environ, general.home, needed=not alone),
        hosts=(named | LOOPBACK_HOSTS) if named or alone else frozenset(),
        objectives=general.objectives or (),
        silent_s=general.presence_s * 12,
        flower_url=environ.get("HIGHNOON_WEBUI_FLOWER_URL") or None,
    )


def _tokens(environ: Mapping[str, str], home: Path, *, needed: bool) -> Tokens | None:
    """A token that a person set is required everywhere; else one is created where it is needed, and kept."""
    viewer = environ.get("HIGHNOON_WEBUI_VIEWER_TOKEN") or None
    given = environ.get("HIGHNOON_TOKEN")
    if given:
        return Tokens(operator=given, viewer=viewer)
    if not needed and viewer is None:
        return None
    path = home / TOKEN_FILE
    token, fresh = kept_token(path, remedy="Set HIGHNOON_TOKEN, or HIGHNOON_HOME to a folder that can be written.")
    return Tokens(operator=token, viewer=viewer, kept_in=path, fresh=fresh)


def _token_problems(environ: Mapping[str, str]) -> list[Problem]:
    """The tokens themselves are never shown."""
    names = ("HIGHNOON_TOKEN", "HIGHNOON_WEBUI_VIEWER_TOKEN")
    given = {name: environ[name] for name in names if environ.get(name)}
    hint = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one."
    problems = [
        Problem(key=name, message=f"must be {SHORTEST_TOKEN} or more printable ASCII characters", hint=hint)
        for name, token in given.items()
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token
    ]
    if len(given) == len(set(given.values())):
        return problems
    return [*problems, Problem(key=names[1], message="equals HIGHNOON_TOKEN", hint="A viewer needs another token.")]


def _flower_problems(environ: Mapping[str, str]) -> list[Problem]:
    """It is used as a link, and a link may be a script."""
    url = environ.get("HIGHNOON_WEBUI_FLOWER_URL", "")
    if not url or url.startswith(("http://", "https://")):
        return []
    hint = "It begins with http:// or https://."
    return [Problem(key="HIGHNOON_WEBUI_FLOWER_URL", message="is no address of a page", value=url, hint=hint)]
