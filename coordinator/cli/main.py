"""The command line: which commands there are, below which headings. Each stands in `coordinator.commands`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import typer

from highnoon.coordinator.cli import analyse, deploy, nodes, read, run, steer, trials
from highnoon.coordinator.cli.sections import Sections
from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.runtime.exit_codes import show
from highnoon.shared.runtime.processes import declare_only_our_code

PROGRAM = "highnoon"
"""The same command line as an installed program; shells complete programs, not modules."""

_HELP = """Hyperparameter studies on Celery workers: start them, steer them, read them.

A study is a file (TOML, JSON or YAML) beside a Python function that takes parameters and returns a number. Without
addresses everything runs on this machine, with its data under .highnoon.
"""

_EPILOG = """\
Examples:
  python -m coordinator start examples/digits/study.toml --workers 2
  python -m coordinator watch
  python -m coordinator trials digits --sort score --limit 5
  python -m coordinator best digits --format toml > best.toml
  python -m coordinator plot digits --kind parallel -o digits.html

COMMAND --help tells more; docs/cli.md has settings and exit codes.
"""

_SECTIONS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "Run": {"start": run.start, "submit": run.submit},
    "Read": {
        "list": read.list_studies,
        "status": read.status,
        "watch": read.watch,
        "best": read.best,
        "trials": trials.trials,
        "logs": trials.logs,
    },
    "Analyse": {"importance": analyse.importance, "plot": analyse.plot, "compare": analyse.compare},
    "Steer": {"pause": steer.pause, "resume": steer.resume, "cancel": steer.cancel, "retry": steer.retry},
    "Service": {
        "workers": nodes.workers,
        "drain": nodes.drain,
        "reinstate": nodes.reinstate,
        "doctor": nodes.doctor,
        "exec": run.execute,
        "init-deploy": deploy.init_deploy,
    },
}

_FOREIGN = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What stands behind `exec` belongs to another program."""


def _assembled() -> typer.Typer:
    app = typer.Typer(
        cls=Sections,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=_HELP,
        epilog=_EPILOG,
    )
    for section, commands in _SECTIONS.items():
        for name, command in commands.items():
            settings = _FOREIGN if name == "exec" else None
            app.command(name, rich_help_panel=section, context_settings=settings)(command)
    app.command(hidden=True)(nodes.flower)
    return app


app = _assembled()

_ASKS_FOR_COMPLETION = {"--install-completion", "--show-completion"}


def main() -> None:
    """Never shows a traceback for what a person wrote, for a service that is away or for a disk that is full."""
    declare_only_our_code()
    try:
        # A shell completes programs by their name, and `python -m coordinator` is none.
        app(prog_name=PROGRAM if _ASKS_FOR_COMPLETION & {*sys.argv} else None)
    except (HighNoonError, OSError) as error:
        sys.exit(show(error))
