"""The checks of settings, each in the light of the settings before it: what `Settings` runs when it is made.

A check returns what is kept. It raises PydanticCustomError with a hint, or ValueError, which `settings` makes Problems
of.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.secret_files import SHORTEST_TOKEN
from highnoon.shared.runtime.urls import is_loopback, normalise

REDIS_SCHEMES = ("redis://", "rediss://")
SHORTEST_KEY = 16


def lowered(value: object) -> object:
    """A text in small letters."""
    return value.lower() if isinstance(value, str) else value


def split(value: object) -> object:
    """A text with commas as its parts."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def installed_to_preload() -> tuple[str, ...]:
    """What takes long to import, where it is installed: projects without TensorFlow need none of it."""
    return tuple(name for name in ("tensorflow", "keras") if find_spec(name) is not None)


def is_a_postgresql(url: str | None) -> str | None:
    """The normalised address of a PostgreSQL: a cluster needs one."""
    try:
        address = url and normalise(url)
    except InvalidInput as error:
        raise PydanticCustomError("address", error.problems[0].message, {"hint": error.problems[0].hint}) from None
    if address and not address.startswith("postgresql+psycopg2:"):
        hint = "Write postgresql://user:password@host/db; other databases serve HPOTrialManager in one process."
        raise PydanticCustomError("address", "a cluster needs PostgreSQL, by the driver psycopg2", {"hint": hint})
    return address


def is_a_redis(url: str | None) -> str | None:
    """An address of a Redis."""
    if url and not url.startswith(REDIS_SCHEMES):
        hint = f"It begins with one of {', '.join(REDIS_SCHEMES)}."
        raise PydanticCustomError("address", "is no address of a Redis", {"hint": hint})
    if url and not _is_readable(url):
        hint = (
            "Write redis://:password@host:6379/0; in the password %2F stands for /, %23 for # and %3F for ?. "
            "Options begin with ssl_."
        )
        raise PydanticCustomError("address", "cannot be read", {"hint": hint})
    return url


def _is_readable(url: str) -> bool:
    """Whether Celery and redis-py both take its port, number and options, and none of them is a part of a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError
    except ValueError:
        return False
    options = parse_qsl(parts.query, keep_blank_values=True)
    return (
        re.fullmatch(r"/?[0-9]*", parts.path) is not None
        and all(re.fullmatch(r"ssl_[a-z_]+", name) for name, _ in options)
        and "@" not in parts.fragment
    )


def cannot_be_guessed(key: str | None) -> str | None:
    """A key that is long enough."""
    return None if key is None else _long_enough(key, SHORTEST_KEY)


def receivers_need_a_signature(key: str | None, info: ValidationInfo) -> str | None:
    """A key, which notifications need."""
    if key is None and info.data.get("notify_hosts"):
        hint = "Set HIGHNOON_NOTIFY_KEY; the receivers compute the same signature with it."
        raise PydanticCustomError("key", "is needed where notifications are sent", {"hint": hint})
    return None if key is None else _long_enough(key, SHORTEST_KEY)


def is_a_place_for_files(url: str | None) -> str | None:
    """An absolute folder, or an address of fsspec."""
    if not url or "://" in url or Path(url).expanduser().is_absolute():
        return url and (url if "://" in url else str(Path(url).expanduser()))
    hint = "Write an absolute path, which all machines reach, or an address of fsspec such as s3://bucket/folder."
    raise PydanticCustomError("address", "is no place for files", {"hint": hint})


def is_a_json_object(options: str | None) -> str | None:
    """A JSON object, as it was written."""
    try:
        if options is None or isinstance(json.loads(options), dict):
            return options
    except ValueError:
        pass
    hint = 'Write for example {"key": "...", "secret": "..."}, as fsspec takes them for this kind of address.'
    raise PydanticCustomError("options", "must be a JSON object", {"hint": hint})


def absolute(home: Path) -> Path:
    """The folder's absolute path, `~` replaced."""
    return home.expanduser().absolute()


def two_renewals_fit_into_a_lease(renew_s: float, info: ValidationInfo) -> float:
    """Less than half of a lease."""
    lease_s = info.data.get("lease_s")
    if lease_s is not None and renew_s >= lease_s / 2:
        raise ValueError(f"must be less than half of lease_s ({lease_s:g}), so that one lost renewal is no lost lease")
    return renew_s


def a_leader_outlives_its_tick(leader_ttl_s: float, info: ValidationInfo) -> float:
    """More than a tick."""
    tick_s = info.data.get("tick_s")
    if tick_s is not None and leader_ttl_s <= tick_s:
        raise ValueError(f"must be more than tick_s ({tick_s:g}), or leadership ends between two ticks")
    return leader_ttl_s


def others_need_a_token(token: str | None, info: ValidationInfo) -> str | None:
    """A token that is long enough, which metrics beyond loopback need."""
    host = info.data.get("metrics_host", "")
    is_on = info.data.get("metrics_port") or info.data.get("worker_metrics_port")
    if token is None and is_on and not is_loopback(host):
        hint = "Set HIGHNOON_METRICS_TOKEN, and the same as bearer token in Prometheus."
        raise PydanticCustomError("token", f"is needed where others can reach the metrics ({host})", {"hint": hint})
    return None if token is None else _long_enough(token, SHORTEST_TOKEN)


def _long_enough(secret: str, shortest: int) -> str:
    if len(secret) >= shortest and secret.isascii() and secret.isprintable():
        return secret
    hint = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one."
    raise PydanticCustomError("secret", f"must be {shortest} or more printable ASCII characters", {"hint": hint})
