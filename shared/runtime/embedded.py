"""The embedded stack for processes other than its owner: whether one runs in a home, and at which addresses.

Reads what the owner (`coordinator.local.stack`) wrote into the home; starts, stops and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.runtime.data_dir import LOOPBACK, Holder, Home, ServiceState
from highnoon.shared.runtime.processes import identify

START = "coordinator start"
"""The purpose for which a home is held while everything in it runs."""

POSTGRES, REDIS = "postgres", "redis"
ROLE = DATABASE = "highnoon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A stack that runs now, with passwords in its addresses."""

    pid: int
    database_url: str
    redis_url: str


def attach(root: Path) -> Running | None:
    """The stack that runs in this home now; None when none does, or it is still starting. Changes nothing."""
    home = Home(root)
    holder = living_holder(home)
    if holder is None or not holder.ready or holder.purpose != START:
        return None
    services = home.load().services
    return Running(
        pid=holder.process.pid,
        database_url=postgres_url(services[POSTGRES]),
        redis_url=redis_url(services[REDIS]),
    )


def living_holder(home: Home) -> Holder | None:
    """The holder of the home; None when it has none, or its last holder was killed."""
    holder = home.load().holder
    return holder if holder and identify(holder.process.pid) == holder.process else None


def postgres_url(address: ServiceState) -> str:
    """The database's address for clients, with the password."""
    return f"postgresql+psycopg2://{ROLE}:{address.password}@{LOOPBACK}:{address.port}/{DATABASE}"


def redis_url(address: ServiceState) -> str:
    """The broker's address for clients, with the password."""
    return f"redis://:{address.password}@{LOOPBACK}:{address.port}/0"
