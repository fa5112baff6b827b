"""Flower, run on our own Celery app: never `celery -A` in a folder of the user's.

Loopback, behind a password that is made once and kept in the home, read-only, bounded in memory. It shows tasks as
they pass through Redis, by study and ticket. Not a source of truth: the ledger is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.runtime.secret_files import with_secret_files
from highnoon.shared.runtime.tokens import SHORTEST_TOKEN, kept_token

USER = "highnoon"
PASSWORD = "HIGHNOON_FLOWER_PASSWORD"
_FILE = "flower-password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What Flower asks a browser for. `fresh` when it was made just now: to be shown this once."""

    password: str
    kept_in: Path
    fresh: bool


def flower_login(home: Path) -> Login:
    """The password that a person set, else the one of this home's Flower, made where there is none.

    Raises InvalidInput.
    """
    environ, problems = with_secret_files(os.environ)
    given = environ.get(PASSWORD, "")
    if given and (len(given) < SHORTEST_TOKEN or not given.replace("-", "").replace("_", "").isalnum()):
        problems.append(Problem(key=PASSWORD, message=f"must be {SHORTEST_TOKEN} or more letters, digits, - and _"))
    if problems:
        raise InvalidInput("environment", problems)
    if given:
        return Login(password=given, kept_in=Path(PASSWORD), fresh=False)
    path = home / _FILE
    password, fresh = kept_token(path, remedy="Set HIGHNOON_HOME to a folder that can be written.")
    return Login(password=password, kept_in=path, fresh=fresh)


def run_flower(redis_url: str, login: Login, *, port: int, address: str = "127.0.0.1") -> None:
    """Serves until a signal ends it."""
    from highnoon.shared.runtime.broker import make_app

    _close_what_asks_for_no_credential()
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


def _close_what_asks_for_no_credential() -> None:
    """Flower's own metrics are open to everybody; ours are elsewhere. `/healthcheck` stays: it says OK and no more."""
    from flower import urls  # importing it takes a second, which no other command should pay

    def is_open(handler: Any) -> bool:
        return isinstance(handler, tuple) and handler[0] == "/metrics"

    urls.handlers[:] = [handler for handler in urls.handlers if not is_open(handler)]
