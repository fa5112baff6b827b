"""The command that prepares a deployment; `coordinator.local.deployment` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DeployFolder = Annotated[Path, typer.Argument(help="The folder with compose.yaml.", metavar="DIR")]


def init_deploy(folder: DeployFolder = Path("deploy")) -> None:
    """Make the passwords and tokens that deploy/compose.yaml needs.

    Each goes into a file of its own in DIR/secrets, for its owner alone. What exists stays as it is.

    Example: python -m coordinator init-deploy
    """
    from highnoon.coordinator.local.deployment import prepare

    for line in prepare(folder):
        typer.echo(line)
