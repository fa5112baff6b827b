"""`python -m workers start`: the command line of a node. Parses and hands over; the agent does the work."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from shared.errors import HighNoonError, InvalidInput, Problem
from shared.exits import show
from shared.logs import configure
from shared.messages import RESOURCES
from shared.settings import load_settings
from workers.agent import Agent
from workers.node import Node

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def about() -> None:
    """The worker nodes of HighNoon HPO."""


@app.command()
def start(
    queues: Annotated[str, typer.Option(help="Resources to serve, comma-separated: cpu, gpu.")] = "cpu",
    slots: Annotated[int | None, typer.Option(help="Trials at a time. Default: one per two cores.", min=1)] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing waits or runs, for machines on loan.")
    ] = False,
) -> None:
    """Serves trials until SIGTERM or Ctrl-C; the first drains, the second ends at once.

    Needs HIGHNOON_DATABASE_URL and HIGHNOON_REDIS_URL.

    Example: python -m workers start --queues cpu --slots 4
    """
    settings = load_settings()
    missing = [name for name in ("database_url", "redis_url") if getattr(settings, name) is None]
    if missing:
        problems = [
            Problem(key=f"HIGHNOON_{name.upper()}", message="is not set", hint="A worker needs both addresses.")
            for name in missing
        ]
        raise InvalidInput("environment", problems)
    configure(settings.log_level)
    node = Node.boot(slots=slots or max(1, (os.cpu_count() or 2) // 2), resources=_resources(queues), settings=settings)
    raise typer.Exit(Agent(node, until_empty=until_empty).run())


def _resources(written: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in written.split(",") if name.strip()))
    unknown = [name for name in names if name not in RESOURCES]
    if unknown or not names:
        problem = Problem(
            key="--queues",
            message="no such resource",
            value=", ".join(unknown) or written,
            hint=f"Valid: {', '.join(RESOURCES)}.",
        )
        raise InvalidInput("command line", [problem])
    return names


def main() -> None:
    """Exit codes: 0 drained, 2 a mistake in what was written, 3 a service is away, 4 the pool cannot live."""
    try:
        app()
    except (HighNoonError, OSError) as error:
        sys.exit(show(error))


if __name__ == "__main__":
    main()
