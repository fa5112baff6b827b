"""The command line: which commands there are, below which headings, in the order in which a person meets them.

A command parses, calls and prints; each group of commands has a file of its own here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from highnoon.coordinator.cli import (
    analyse,
    artifacts,
    audit,
    backup,
    export,
    nodes,
    note,
    read,
    reproduce,
    run,
    steer,
    trials,
)
from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.runtime.command import Command
from highnoon.shared.runtime.processes import declare_only_our_code
from highnoon.shared.runtime.terminal import show

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
  python -m coordinator list --storage sqlite:///hpo.db

COMMAND --help explains more; docs/cli.md has settings and exit codes.
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
        "artifacts": artifacts.artifacts,
    },
    "Analyse": {
        "importance": analyse.importance,
        "plot": analyse.plot,
        "compare": analyse.compare,
        "export": export.export,
        "reproduce": reproduce.reproduce,
    },
    "Steer": {
        "pause": steer.pause,
        "resume": steer.resume,
        "cancel": steer.cancel,
        "set": steer.set_share,
        "retry": steer.retry,
        "enqueue": steer.enqueue,
        "extend-trial": steer.extend_trial,
        "stop-trial": steer.stop_trial,
        "note": note.note,
        "delete": steer.delete,
    },
    "Service": {
        "workers": nodes.workers,
        "drain": nodes.drain,
        "reinstate": nodes.reinstate,
        "doctor": nodes.doctor,
        "flower": nodes.flower,
        "audit": audit.audit,
        "backup": backup.backup,
        "restore": backup.restore,
        "exec": run.execute,
        "init-deploy": run.init_deploy,
    },
}

_FOREIGN = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""The arguments of `exec` belong to another program."""


class Sections(TyperGroup):
    """A group whose commands stand below the headings that `rich_help_panel` gives them."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        width = max(map(len, shown))
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in shown.items():
            summary = command.get_short_help_str(formatter.width - width - 6)
            sections.setdefault(str(getattr(command, "rich_help_panel", "Commands")), []).append(
                (name.ljust(width), summary)
            )
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """As it is written: examples lose their sense when they are filled like a paragraph."""
        formatter.write_paragraph()
        for line in (self.epilog or "").splitlines():
            formatter.write(f"{line}\n")


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
            app.command(name, cls=Command, rich_help_panel=section, context_settings=settings)(command)
    app.callback()(_options)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"highnoon-hpo {version('highnoon-hpo')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    pass


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
