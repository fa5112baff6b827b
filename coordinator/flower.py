"""Flower, run on our own Celery app: never `celery -A` in a folder of the user's.

Loopback, read-only, bounded in memory. Not a source of truth: the ledger is.
"""

from __future__ import annotations

from shared.broker import make_app


def run_flower(redis_url: str, *, port: int, address: str = "127.0.0.1") -> None:
    """Serves until a signal ends it."""
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
        ]
    )
