"""Commands that look into results: importance, plot, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.answers import no_result, print_json, print_table
from highnoon.coordinator.cli.arguments import AsJson, StudyName, mistake
from highnoon.coordinator.cli.store_access import ledger, study_names
from highnoon.shared.domain.errors import nearest

if TYPE_CHECKING:
    from highnoon.coordinator.cli.comparison import Side
    from highnoon.shared.domain.trial import Trial
    from highnoon.shared.store.access import Access

KINDS = ("history", "slice", "parallel", "contour", "importances", "intermediate", "timeline", "pareto")

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
    from highnoon.coordinator.cli.report import importance_table

    with ledger() as access:
        shares = access.store.view(access.study(study).name).param_importance()
    if json:
        print_json(shares)
    elif shares:
        print_table(importance_table(shares))
    else:
        raise _too_few(study)


def plot(
    study: StudyName, kind: Kind = "history", output: Output = None, param: Params = None, json: AsJson = False
) -> None:
    """Draw a figure of a study into a file.

    HTML can be zoomed, and needs no network. Pictures need the package kaleido.
    A contour shows the two parameters that mattered most, unless --param names others.

    Example: python -m coordinator plot digits --kind slice -o digits.html
    """
    from highnoon.coordinator.cli.plot_export import check_suffix, write
    from highnoon.coordinator.cli.report import near

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
        view = access.store.view(record.name)
        missing = _what_is_missing(kind, view.trials())
        if missing:
            raise no_result(f"study {study} {missing}")
        chosen = param or (list(view.param_importance())[:2] if kind == "contour" else None)
        figure = view.figure(kind, chosen)
    if json:
        typer.echo(figure.to_json())
        return
    write(figure, path)
    typer.echo(f"wrote {near(path)}")


def compare(study: StudyName, other: OtherStudy, json: AsJson = False) -> None:
    """Show two studies side by side.

    What came out, what it took, the best parameters, and what was asked differently.

    Example: python -m coordinator compare digits digits-wide
    """
    from highnoon.coordinator.cli.comparison import comparison_object, comparison_table

    with ledger() as access:
        sides = [_side(name, access) for name in (study, other)]
    if json:
        print_json(comparison_object(*sides))
    else:
        print_table(comparison_table(*sides))


def _side(name: str, access: Access) -> Side:
    from highnoon.coordinator.cli.comparison import Side

    record = access.study(name)
    optuna = access.optuna(record)
    return Side(
        record=record,
        counts=access.studies.counts(record.id),
        best=optuna.best_trial(),
        trials=optuna.trials(),
        now=access.studies.clock(),
    )


def _what_is_missing(kind: str, trials: Sequence[Trial]) -> str:
    """Empty when there is something to draw."""
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    if kind == "timeline":
        return "" if trials else "has no trial yet"
    if kind == "intermediate":
        return "" if any(trial.reports for trial in trials) else "has no reports: its objective calls no hn.report"
    if kind == "pareto":
        sized = any(trial.params_count is not None for trial in complete)
        return "" if sized else "knows no size of its trials: its objective calls no hn.report_params"
    if len(complete) < 2:
        return "has fewer than two completed trials; wait for more"
    return ""


def _too_few(study: str) -> typer.Exit:
    next_step = f"python -m coordinator watch {study} shows how far it is"
    return no_result(f"study {study} has fewer than two completed trials", next_step=next_step)
