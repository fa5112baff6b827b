"""Addresses: a database's with its driver named and its password hidden, the names of hosts, and which are loopback.

SQLAlchemy resolves a bare `postgresql://` or `mysql://` to another driver in other releases, so the drivers that
we install are named here, once, before an address reaches any engine. Opens
nothing.
"""

from __future__ import annotations

import ipaddress
import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, Problem

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg2",
    "postgres": "postgresql+psycopg2",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}

_EXAMPLES = "sqlite:///hpo.db, postgresql://user:password@host:5432/db, mysql://user:password@host/db"

_SCHEME = re.compile(r"(?P<dialect>[a-z0-9]+)(?:\+(?P<driver>[a-z0-9_]+))?://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_USER_PASSWORD = re.compile(r"(://[^:/?#@]*:).*@", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"([?&](?:ssl)?pass(?:word|wd)=)[^&]*", re.IGNORECASE)


def normalise(url: str, *, key: str = "url") -> str:
    """The address with its driver named. Raises InvalidInput, naming the valid ones, for any other database."""
    matched = _SCHEME.fullmatch(url.strip())
    dialect = matched["dialect"].lower() if matched else ""
    if matched is None or dialect not in _DRIVERS:
        raise InvalidInput("storage", [_problem(key, url, "is no address of a database for studies", dialect)])
    rest = matched["rest"]
    if dialect == "sqlite" and rest and not rest.startswith("/"):
        hint = f"Did you mean sqlite:///{rest}? A relative path takes three slashes, an absolute one four."
        raise InvalidInput.of("storage", key, "has too few slashes", value=masked(url), hint=hint)
    password = rest.partition("?")[0].rpartition("@")[0].partition(":")[2]
    if dialect != "sqlite" and "@" in password:
        # SQLAlchemy would take the rest of it for the host, and the error would name that.
        hint = "Write it as %40."
        raise InvalidInput.of("storage", key, "has an @ in its password", value=masked(url), hint=hint)
    driver = matched["driver"]
    if driver is None and _DRIVERS[dialect].endswith("pymysql") and find_spec("pymysql") is None:
        hint = 'pip install "highnoon-hpo[mysql]"'
        raise InvalidInput.of("storage", key, "needs pymysql", value=masked(url), hint=hint)
    return f"{_DRIVERS[dialect]}://{rest}" if driver is None else f"{_explicit(dialect, driver)}://{rest}"


def existing(url: str, *, key: str) -> str:
    """As `normalise`, for a database to read. Raises InvalidInput for an SQLite file that is missing, too."""
    address = normalise(url, key=key)
    path = address.removeprefix("sqlite:///")
    if path != address and not Path(path.partition("?")[0]).is_file():
        raise InvalidInput.of(
            "storage",
            key,
            "there is no such file",
            value=masked(url),
            hint="The first study with this storage makes it.",
        )
    return address


def masked(url: str) -> str:
    """The address with every password in it replaced by ***; never raises, for logs, errors and `doctor`."""
    if "://" not in url and ("@" in url or "pass" in url.lower()):
        return "***"  # it is no address, and may have its password anywhere
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1***@", url))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(host: str) -> str:
    """The name in a Host header, without the port; an IPv6 address keeps its brackets. Empty for what is no host."""
    matched = _HOST.fullmatch(host)
    return matched[1].lower() if matched else ""


def _explicit(dialect: str, driver: str) -> str:
    """A driver that a person named stays; only the alias `postgres` is no dialect of SQLAlchemy."""
    return f"{'postgresql' if dialect == 'postgres' else dialect}+{driver.lower()}"


def _problem(key: str, url: str, message: str, dialect: str) -> Problem:
    near = get_close_matches(dialect, _DRIVERS, n=1) if dialect else []
    hint = f"Did you mean {near[0]}://? " if near else ""
    if not dialect and url.strip().endswith((".db", ".sqlite", ".sqlite3")):
        hint = f"Did you mean sqlite:///{url.strip()}? "
    return Problem(key=key, message=message, value=masked(url), hint=f"{hint}Valid: {_EXAMPLES}.")
