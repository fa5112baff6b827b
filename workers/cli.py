"""The command line of a node: reads the options and starts the agent."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from highnoon.shared.domain.errors import HighNoonError, InvalidInput, Problem
from highnoon.shared.domain.messages import RESOURCES
from highnoon.shared.memory.cores import usable_cores
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.objective.allow_list import patterns_here
from highnoon.shared.objective.bundle import key_of
from highnoon.shared.runtime.command import Command
from highnoon.shared.runtime.logs import configure
from highnoon.shared.runtime.processes import declare_only_our_code
from highnoon.shared.runtime.secret_files import SECRET_VARIABLES
from highnoon.shared.runtime.settings import Settings, load_settings
from highnoon.shared.runtime.terminal import show
from highnoon.workers.agent import Agent
from highnoon.workers.gpus import gpu_slots
from highnoon.workers.node import Node
from highnoon.workers.node_confinement import confinement_of

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def about() -> None:
    """The worker nodes of HighNoon HPO."""


@app.command(cls=Command)
def start(
    queues: Annotated[
        str | None,
        typer.Option(help="Resources to serve, with commas: cpu, gpu. Default: cpu, with --gpus gpu.", metavar="NAMES"),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="Trials at a time. Default: one per two cores.", min=1, metavar="N")
    ] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing waits or runs, for machines on loan.")
    ] = False,
    gpus: Annotated[
        str | None, typer.Option(help="Pin each slot to a GPU: all, or numbers or UUIDs with commas.", metavar="GPUS")
    ] = None,
    slots_per_gpu: Annotated[int, typer.Option(help="Trials at a time on each of these GPUs.", min=1, metavar="N")] = 1,
) -> None:
    """Serve trials until SIGTERM or Ctrl-C.

    The first of them drains, the second ends at once.
    Needs HIGHNOON_DATABASE_URL and HIGHNOON_REDIS_URL, and HIGHNOON_OBJECTIVES or HIGHNOON_CLUSTER_KEY.

    Example: python -m workers start --queues cpu --slots 4

    Example: python -m workers start --gpus all --slots-per-gpu 2
    """
    settings = load_settings()
    missing = [name for name in ("database_url", "redis_url") if getattr(settings, name) is None]
    if missing:
        problems = [
            Problem(key=f"HIGHNOON_{name.upper()}", message="is not set", hint="A worker needs both addresses.")
            for name in missing
        ]
        raise InvalidInput("environment", problems)
    _require_permission(settings)
    configure(settings.log_level)
    pinned = _pinned(gpus, slots, slots_per_gpu)
    node = Node(
        slots=len(pinned) or slots or max(1, usable_cores() // 2),
        resources=_resources(queues if queues is not None else "gpu" if pinned else "cpu"),
        settings=settings,
        gpus=pinned,
        confinement=confinement_of(settings, os.environ),
    )
    raise typer.Exit(Agent(node, until_idle=until_empty).run())


@app.command(cls=Command, hidden=True)
def reproduce(study: str, trial: int) -> None:
    """Run a trial once more: for `python -m coordinator reproduce`, which gives it the addresses."""
    from highnoon.shared.views.formats import dumps
    from highnoon.workers.reproduction import reproduce as run_again

    settings = load_settings()
    configure("error")  # of a refusal, which is raised as well, a node logs a warning
    for name in SECRET_VARIABLES:  # the trial inherits the environment
        os.environ.pop(name, None)
    typer.echo(dumps(run_again(settings, study, trial)))


def _require_permission(settings: Settings) -> None:
    """A worker that may run nothing would fail every trial that it takes."""
    if patterns_here(settings) is None and key_of(settings) is None:
        hint = (
            "Say what this worker may run, for example HIGHNOON_OBJECTIVES='/srv/objectives/*.py,mypackage.*' "
            "('*' for anything that a study names), or set HIGHNOON_CLUSTER_KEY to run signed bundles only."
        )
        raise InvalidInput.of("environment", "HIGHNOON_OBJECTIVES", "is not set", hint=hint)


def _pinned(gpus: str | None, slots: int | None, slots_per_gpu: int) -> tuple[str, ...]:
    if gpus is None and slots_per_gpu != 1:
        raise InvalidInput.of(
            "command line", "--slots-per-gpu", "needs --gpus", value=slots_per_gpu, hint="Add --gpus all."
        )
    if gpus is None:
        return ()
    if slots is not None:
        hint = "Slots on GPUs are counted by --slots-per-gpu."
        raise InvalidInput.of("command line", "--slots", "excludes --gpus", value=slots, hint=hint)
    return gpu_slots(gpus, slots_per_gpu=slots_per_gpu, gpus=Gpus())


def _resources(written: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in written.split(",") if name.strip()))
    unknown = [name for name in names if name not in RESOURCES]
    if unknown or not names:
        raise InvalidInput.of(
            "command line",
            "--queues",
            "no such resource",
            value=", ".join(unknown) or written,
            hint=f"Valid: {', '.join(RESOURCES)}.",
        )
    return names


def main() -> None:
    """Exit codes: 0 drained, 2 a mistake in what was written, 3 a service is away, 4 the pool cannot start."""
    declare_only_our_code()
    try:
        app()
    except (HighNoonError, OSError) as error:
        sys.exit(show(error))
