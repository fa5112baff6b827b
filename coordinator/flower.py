"""Flower, run on our own Celery app: never `celery -A` in a folder of the user's.

Read-only, bounded in memory, and beyond loopback only with a password. Not a source of truth: the ledger is.
"""

from __future__ import annotations

import ipaddress

from flower import urls

from shared.broker import make_app
from shared.errors import InvalidInput, Problem

USER = "highnoon"
PASSWORD = "HIGHNOON_FLOWER_PASSWORD"
SHORTEST_PASSWORD = 16


def run_flower(redis_url: str, *, port: int, address: str = "127.0.0.1", password: str | None = None) -> None:
    """Serves until a signal ends it. Raises InvalidInput for an open door: an address for others, no good password."""
    _check(address, password)
    # Flower asks nobody for a credential there. `/healthcheck` stays: it says OK and nothing else.
    urls.handlers[:] = [handler for handler in urls.handlers if "/metrics" not in (handler if isinstance(handler, tuple) else ())]
    make_app(redis_url).start(
        argv=[
            "flower",
            f"--address={address}",
            f"--port={port}",
            "--max_tasks=5000",
            "--purge_offline_workers=600",
            "--read_only",
            # Our workers send events by their own settings; Flower need not ask them to every five seconds.
            "--enable_events=False",
            # Its inspections of workers that are not there yet are warnings.
            "--logging=error",
            *([f"--basic_auth={USER}:{password}"] if password else []),
        ]
    )


def _check(address: str, password: str | None) -> None:
    if password is None:
        if not ipaddress.ip_address(address).is_loopback:
            hint = f"Set {PASSWORD}, or HIGHNOON_FLOWER_PASSWORD_FILE."
            problem = Problem(key="--address", message="is open to others, without a password", value=address, hint=hint)
            raise InvalidInput("command line", [problem])
    elif len(password) < SHORTEST_PASSWORD or not password.replace("-", "").replace("_", "").isalnum():
        message = f"must be {SHORTEST_PASSWORD} or more letters, digits, - and _"
        raise InvalidInput("environment", [Problem(key=PASSWORD, message=message)])
