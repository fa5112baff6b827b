"""Commands that look into results: importance, plot, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import AsJson, StudyName, mistake, no_result, print_json, print_table
from highnoon.coordinator.cli.ledger_access import ledger, study_names
from highnoon.shared.domain.errors import nearest

if TYPE_CHECKING:
    from highnoon.coordinator.cli.comparison import Side
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.studies import StudyRecord
    from highnoon.shared.views.charts import Figure

KINDS = (
    "history", "slice", "parallel", "contour", "importances", "intermediate", "timeline", "pareto",
    "outcomes", "memory",
)  # fmt: skip

_OTHER_NAMES = {"importances": "importance"}
"""Kinds that have another name on the dashboard."""

_MOST_ATTEMPTS = 1500

Kind = Annotated[
    str,
    typer.Option(
        "--kind", "-k", help=", ".join(KINDS), metavar="KIND", show_default=True, autocompletion=lambda: list(KINDS)
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Default: STUDY-KIND.html. Also .png, .svg, .pdf and .json.", metavar="FILE"),
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="Only this parameter; give it again for more.", metavar="NAME"),
]
OtherStudy = Annotated[str, typer.Argument(help="The other one.", metavar="OTHER", autocompletion=study_names)]


def importance(study: StudyName, json: AsJson = False) -> None:
    """Print how much each parameter mattered.

    By Optuna's PED-ANOVA, which weighs what sets the better trials apart from the others. The shares add up to 100%.

    Example: python -m coordinator importance digits
    """
    from highnoon.coordinator.cli.tables import importance_table

    with ledger() as access:
        shares = access.store.view(access.study(study).name).param_importance()
    if json:
        print_json(shares)
    elif shares:
        print_table(importance_table(shares))
    else:
        raise _nothing_yet(study, "fewer than two trials have completed")


def plot(
    study: StudyName, kind: Kind = "history", output: Output = None, param: Params = None, json: AsJson = False
) -> None:
    """Draw a figure of a study into a file.

    HTML can be zoomed, and needs no network. Pictures need the package kaleido.
    A contour shows the two parameters that mattered most, unless --param names others.

    Example: python -m coordinator plot digits --kind slice -o digits.html
    """
    from highnoon.coordinator.cli.plot_export import check_suffix, plotly_figure, write
    from highnoon.coordinator.cli.tables import near
    from highnoon.shared.views.charts import TITLES

    if kind not in KINDS:
        raise mistake("--kind", "is no figure", kind, nearest(kind, KINDS))
    path = output or Path(f"{study}-{kind}.html")
    check_suffix(path)
    with ledger() as access:
        record = access.study(study)
        names = list(record.spec["search_space"])
        for name in param or ():
            if name not in names:
                raise mistake("--param", f"is no parameter of study {study}", name, nearest(name, names))
        figure = _figure(record, kind, param or (), access)
    if not figure.data:
        raise _nothing_yet(study, figure.note)
    drawn = plotly_figure(figure, f"{study}: {TITLES[_OTHER_NAMES.get(kind, kind)]}")
    if json:
        typer.echo(drawn.to_json())
        return
    write(drawn, path)
    typer.echo(f"wrote {near(path)}")


def compare(study: StudyName, other: OtherStudy, json: AsJson = False) -> None:
    """Show two studies side by side.

    Results, costs, the best parameters, and where their study files differ.

    Example: python -m coordinator compare digits digits-wide
    """
    from highnoon.coordinator.cli.comparison import comparison_object, comparison_table

    with ledger() as access:
        sides = [_side(name, access) for name in (study, other)]
    if json:
        print_json(comparison_object(*sides))
    else:
        print_table(comparison_table(*sides))


def _figure(record: StudyRecord, kind: str, params: Sequence[str], access: Access) -> Figure:
    from highnoon.shared.store.queries import LedgerQueries
    from highnoon.shared.views.charts import FIGURES, NEEDS_ATTEMPTS, FigureInput

    name = _OTHER_NAMES.get(kind, kind)
    view = access.store.view(record.name)
    trials = view.trials()
    importance = view.param_importance() if name in ("importance", "contour") else {}
    queries = LedgerQueries(access.database) if name in NEEDS_ATTEMPTS else None
    return FIGURES[name](
        FigureInput(
            trials=trials,
            space=view.space(),
            maximize=view.direction == "maximize",
            params=params or (list(importance)[:2] if name == "contour" else ()),
            importance=importance,
            spans=queries.spans(record.id, limit=_MOST_ATTEMPTS) if queries else (),
            causes=queries.causes(record.id) if queries else (),
        )
    )


def _side(name: str, access: Access) -> Side:
    from highnoon.coordinator.cli.comparison import Side
    from highnoon.coordinator.cli.progress import summary_of

    record = access.study(name)
    optuna = access.optuna(record)
    return Side(
        record=record,
        summary=summary_of(record, access.studies),
        best=optuna.best_trial(),
        trials=optuna.trials(),
        now=access.studies.clock(),
    )


def _nothing_yet(study: str, why: str) -> typer.Exit:
    next_step = f"python -m coordinator watch {study} shows how far it is"
    return no_result(f"study {study}: {why[:1].lower()}{why[1:].rstrip('.')}", next_step=next_step)
