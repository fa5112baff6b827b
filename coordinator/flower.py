"""Flower, run on our own Celery app: never `celery -A` in a folder of the user's.

Loopback, behind a password that is made once and kept in the home, read-only, bounded in memory. It shows tasks as
they pass through Redis, by study and ticket. Not a source of truth: the ledger is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.broker import make_app
from shared.tokens import kept_token

USER = "highnoon"
_FILE = "flower-password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What Flower asks a browser for. `fresh` when it was made just now: to be shown this once."""

    password: str
    kept_in: Path
    fresh: bool


def flower_login(home: Path) -> Login:
    """The login of this home's Flower, made where there is none. Raises InvalidInput."""
    path = home / _FILE
    password, fresh = kept_token(path, remedy="Set HIGHNOON_HOME to a folder that can be written.")
    return Login(password=password, kept_in=path, fresh=fresh)


def run_flower(redis_url: str, login: Login, *, port: int, address: str = "127.0.0.1") -> None:
    """Serves until a signal ends it."""
    make_app(redis_url).start(
        argv=[
            "flower",
            f"--address={address}",
            f"--port={port}",
            # The arguments of a call in this process, which no list of processes shows.
            f"--basic_auth={USER}:{login.password}",
            "--tasks_columns=kwargs,state,received,started,runtime,worker,uuid",
            "--max_tasks=5000",
            "--purge_offline_workers=600",
            "--read_only",
            # Our workers send events by their own settings; Flower need not ask them to every five seconds.
            "--enable_events=False",
            # Its inspections of workers that are not there yet are warnings.
            "--logging=error",
        ]
    )
