"""The console commands `highnoon` (the same as `python -m highnoon`) and `highnoon-workers`."""

from __future__ import annotations

from highnoon.shared.runtime.extras import run_command


def coordinator() -> None:
    """The command line of the coordinator."""
    run_command("highnoon.coordinator.cli.main", "coordinator")


def workers() -> None:
    """The command line of a worker node."""
    run_command("highnoon.workers.cli", "worker")


if __name__ == "__main__":
    coordinator()
