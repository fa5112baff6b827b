"""`python -m highnoon.webui`: the dashboard as a process of its own."""

from __future__ import annotations

import sys
from typing import Annotated

from highnoon.shared.runtime.extras import missing_extra_named

with missing_extra_named("the dashboard", "dashboard"):
    import typer

    from highnoon.shared.runtime.command import Command
    from highnoon.webui.server import serve

from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.runtime.logs import configure
from highnoon.shared.runtime.terminal import show


def _run(
    host: Annotated[
        str | None,
        typer.Option(
            help="Where to listen; beyond loopback a token is needed. Default: HIGHNOON_WEBUI_HOST, else 127.0.0.1.",
            metavar="ADDRESS",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port. Default: HIGHNOON_WEBUI_PORT, else 8000.", min=1, max=65535, metavar="PORT"),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="A database. Default: HIGHNOON_DATABASE_URL, else the stack of HIGHNOON_HOME.", metavar="URL"
        ),
    ] = None,
) -> None:
    """Serve the dashboard at /hpo until Ctrl-C.

    Example: python -m highnoon.webui --port 8000
    """
    configure("info")
    serve(host=host, port=port, storage=storage)


def main() -> None:
    """Exits with 2 for what a person wrote, 3 for a service; a traceback is a bug of ours."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(cls=Command)(_run)
    try:
        app(prog_name="python -m highnoon.webui")
    except HighNoonError as error:
        sys.exit(show(error))


if __name__ == "__main__":
    main()
