"""The settings of the dashboard: where it listens and the studies are, who may log in, what a form may start.

Read once at the start, beside the settings that every process has (`shared.runtime.settings`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.states import StrEnum
from highnoon.shared.runtime.secret_files import SHORTEST_TOKEN, kept_token, with_secret_files
from highnoon.shared.runtime.settings import Settings, is_service_link, load_settings
from highnoon.shared.runtime.urls import existing, host_name, is_loopback

TOKEN_FILE = "webui-token"  # noqa: S105 - the file's name
NAMED_TOKENS = "HIGHNOON_WEBUI_TOKENS"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


class Role(StrEnum):
    """What the holder of a token may do."""

    VIEWER = "viewer"
    """Read everything."""
    OPERATOR = "operator"
    """Start, steer and delete studies as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHolder:
    """A token, what it allows, and the name that the audit has for who used it."""

    name: str
    role: Role
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """All tokens that open the dashboard; one of them at least is an operator's."""

    holders: tuple[TokenHolder, ...]
    kept_in: Path | None = None
    """Where a token that we made is kept; None where a person set them all."""
    fresh: str | None = field(default=None, repr=False)
    """A token that was created now: to be shown once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Without `tokens` the dashboard is open, which is allowed on loopback only."""

    home: Path
    database_url: str | None
    tokens: Tokens | None
    hosts: frozenset[str]
    """Allowed values of the Host header; empty: any (a token protects it)."""
    objectives: tuple[str, ...]
    settings: Settings
    """Those that every process has; they name the store of artifacts, and when a worker is gone."""
    flower_url: str | None
    """Where a browser finds Flower; None where it is not set."""


_UNNAMED = {Role.OPERATOR: "operator", Role.VIEWER: "viewer"}
"""What the audit calls those who use the tokens without a name."""

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def listening_at(host: str | None, port: int | None, environ: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Address and port: as given, else as the environment has them, else 127.0.0.1 and 8000. Raises InvalidInput."""
    environ = os.environ if environ is None else environ
    named = environ.get("HIGHNOON_WEBUI_PORT") or "8000"
    if is_service_link("HIGHNOON_WEBUI_PORT", named):
        named = "8000"
    if port is None and not (re.fullmatch(r"[0-9]{1,5}", named) and 1 <= int(named) <= 65535):
        raise InvalidInput.of("settings", "HIGHNOON_WEBUI_PORT", "must be a port, 1 to 65535", value=named)
    address = environ.get("HIGHNOON_WEBUI_HOST") or "127.0.0.1" if host is None else host
    return address, int(named) if port is None else port


def web_settings(
    *, host: str, storage: str | None, environ: Mapping[str, str] | None = None, settings: Settings | None = None
) -> WebSettings:
    """Reads the environment. Raises InvalidInput with all mistakes; makes a token where one is needed and none is."""
    environ = os.environ if environ is None else environ
    general = load_settings(environ) if settings is None else settings
    environ, problems = with_secret_files(environ)
    holders, token_problems = _given_holders(environ)
    named, host_problems = _named_hosts(environ)
    problems += [*token_problems, *host_problems, *_proxy_problems(environ), *_flower_problems(environ)]
    if problems:
        raise InvalidInput("settings", problems)
    alone = is_loopback(host) and not named
    return WebSettings(
        home=general.home,
        database_url=existing(storage, key="storage") if storage is not None else general.database_url,
        tokens=_tokens(holders, general.home, needed=not alone),
        hosts=(named | LOOPBACK_HOSTS) if named or alone else frozenset(),
        objectives=general.objectives or (),
        settings=general,
        flower_url=environ.get("HIGHNOON_WEBUI_FLOWER_URL") or None,
    )


def _tokens(holders: tuple[TokenHolder, ...], home: Path, *, needed: bool) -> Tokens | None:
    """Tokens that a person set are required everywhere; an operator's is created where none is set, and kept."""
    if any(holder.role is Role.OPERATOR for holder in holders):
        return Tokens(holders=holders)
    if not needed and not holders:
        return None
    path = home / TOKEN_FILE
    token, is_fresh = kept_token(path, remedy="Set HIGHNOON_TOKEN, or HIGHNOON_HOME to a folder that can be written.")
    operator = TokenHolder(name=_UNNAMED[Role.OPERATOR], role=Role.OPERATOR, token=token)
    return Tokens(holders=(operator, *holders), kept_in=path, fresh=token if is_fresh else None)


def _given_holders(environ: Mapping[str, str]) -> tuple[tuple[TokenHolder, ...], list[Problem]]:
    """The tokens themselves are never shown."""
    single = ((Role.OPERATOR, "HIGHNOON_TOKEN"), (Role.VIEWER, "HIGHNOON_WEBUI_VIEWER_TOKEN"))
    given = [
        (variable, TokenHolder(name=_UNNAMED[role], role=role, token=environ[variable]))
        for role, variable in single
        if environ.get(variable)
    ]
    problems: list[Problem] = []
    entries = [entry.strip() for entry in re.split(r"[,\n]", environ.get(NAMED_TOKENS, "")) if entry.strip()]
    for number, entry in enumerate(entries, 1):
        name, role, token = (*entry.split(":", 2), "", "")[:3]
        if not _NAME.fullmatch(name) or role not in tuple(Role) or not token:
            hint = "Write NAME:operator:TOKEN or NAME:viewer:TOKEN; a name has letters, digits, - and _."
            problems.append(Problem(key=NAMED_TOKENS, message=f"entry {number} cannot be read", hint=hint))
            continue
        given.append((f"{NAMED_TOKENS} ({name})", TokenHolder(name=name, role=Role(role), token=token)))
    hint = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one."
    problems += [
        Problem(key=key, message=f"must be {SHORTEST_TOKEN} or more printable ASCII characters", hint=hint)
        for key, holder in given
        if len(holder.token) < SHORTEST_TOKEN or not re.fullmatch(r"[!-~]+", holder.token)
    ]
    for number, (key, holder) in enumerate(given):
        for other, earlier in given[:number]:
            if holder.token == earlier.token:
                problems.append(Problem(key=key, message=f"equals {other}", hint="Each needs a token of its own."))
            elif holder.name == earlier.name:
                problems.append(Problem(key=key, message="has the name of another token", value=holder.name))
    return tuple(holder for _, holder in given), problems


def _named_hosts(environ: Mapping[str, str]) -> tuple[frozenset[str], list[Problem]]:
    """The names under which it may be called, as a Host header is compared with them."""
    key = "HIGHNOON_WEBUI_HOSTS"
    entries = [entry.strip() for entry in environ.get(key, "").split(",") if entry.strip()]
    hint = "Write the name alone, such as hpo.example.org, without https:// and path; an IPv6 address in brackets."
    problems = [
        Problem(key=key, message="is no name of a host", value=entry, hint=hint)
        for entry in entries
        if not host_name(entry)
    ]
    return frozenset(map(host_name, entries)), problems


def _proxy_problems(environ: Mapping[str, str]) -> list[Problem]:
    """Uvicorn reads it, and takes without a message what matches no address."""
    key = "FORWARDED_ALLOW_IPS"
    given = environ.get(key, "")
    if given == "*":
        return []
    hint = "Write addresses and networks with commas, such as 10.0.0.7,10.42.0.0/16, or * without anything else."
    problems: list[Problem] = []
    for entry in filter(None, map(str.strip, given.split(","))):
        try:
            ipaddress.ip_network(entry)
        except ValueError:
            problems.append(Problem(key=key, message="is no address or network of a proxy", value=entry, hint=hint))
    return problems


def _flower_problems(environ: Mapping[str, str]) -> list[Problem]:
    """It is used as a link, and a link may be a script."""
    url = environ.get("HIGHNOON_WEBUI_FLOWER_URL", "")
    if not url or url.startswith(("http://", "https://")):
        return []
    hint = "It begins with http:// or https://."
    return [Problem(key="HIGHNOON_WEBUI_FLOWER_URL", message="is no address of a page", value=url, hint=hint)]
