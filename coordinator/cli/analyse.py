"""Commands that look into results: importance, plot, compare; and a figure as HTML, picture or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    StudyName,
    check_output_folder,
    mistake,
    no_result,
    print_json,
    print_table,
    study_names,
)
from highnoon.coordinator.cli.reading import Reader, Storage, next_step, reading
from highnoon.shared.domain.errors import InvalidInput, nearest
from highnoon.shared.domain.param import written_form

if TYPE_CHECKING:
    from highnoon.coordinator.cli.comparison import Side
    from highnoon.shared.views.charts import Figure
    from highnoon.shared.views.studies import StudySummary


KINDS = (
    "history", "slice", "parallel", "contour", "importance", "intermediate", "timeline", "pareto",
    "hypervolume", "outcomes", "memory",
)  # fmt: skip

_OLDER_NAMES = {"importances": "importance"}

_PICTURES = (".png", ".svg", ".pdf")
SUFFIXES = (".html", ".json", *_PICTURES)
_WIDTH, _HEIGHT, _SCALE = 1000, 600, 2
_TITLE_HEIGHT = 110

_COLORS = {
    "$accent": "#1f6aa5", "$best": "#a34d06", "$pruned": "#6c5c93", "$stopped": "#b0147a", "$failed": "#b3261e",
    "$lost": "#7a5b2e", "$running": "#14683c", "$muted": "#676860", "$text": "#23241f", "$card": "#ffffff",
}  # fmt: skip
"""As the dashboard's style sheet has them for a light page."""

_COLOR_SCALES = {
    "$sequence": [[0, "#e2e1dc"], [1, _COLORS["$accent"]]],
    "$quality": [[0, _COLORS["$accent"]], [0.5, "#dfeaf3"], [1, _COLORS["$card"]]],
}

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


def importance(study: StudyName, storage: Storage = None, json: AsJson = False) -> None:
    """Print how much each parameter mattered.

    By Optuna's PED-ANOVA, which weighs what sets the better trials apart from the others. The shares add up to 100%.
    Of several objectives the first one counts.

    Example: python -m coordinator importance digits
    """
    from highnoon.coordinator.cli.tables import importance_table

    with reading(storage) as reader:
        summary = reader.study(study)
        shares = reader.view(study).param_importance()
    if json:
        print_json(shares)
    elif shares:
        print_table(importance_table(shares))
    else:
        raise _nothing_yet(summary, "fewer than two trials have completed", storage)


def plot(
    study: StudyName,
    kind: Kind = "history",
    output: Output = None,
    param: Params = None,
    storage: Storage = None,
    json: AsJson = False,
) -> None:
    """Draw a figure of a study into a file.

    HTML can be zoomed, and needs no network. Pictures need the package kaleido.
    A contour shows the two parameters that mattered most, unless --param names others. Of several objectives the first
    one is drawn.

    Example: python -m coordinator plot digits --kind slice -o digits.html
    """
    from highnoon.coordinator.cli.tables import near
    from highnoon.shared.views.charts import TITLES

    kind = _OLDER_NAMES.get(kind, kind)
    if kind not in KINDS:
        raise mistake("--kind", "is no figure", kind, nearest(kind, KINDS))
    path = output or Path(f"{study}-{kind}.html")
    check_suffix(path)
    with reading(storage) as reader:
        summary = reader.study(study)
        figure = _figure(summary, kind, param or (), reader)
    if not figure.suits:
        raise mistake("--kind", _inside(figure.note), kind)
    if not figure.data:
        raise _nothing_yet(summary, figure.note, storage)
    drawn = plotly_figure(figure, f"{study}: {TITLES[kind]}")
    if json:
        typer.echo(drawn.to_json())
        return
    write_figure(drawn, path)
    typer.echo(f"wrote {near(path)}")


def compare(study: StudyName, other: OtherStudy, storage: Storage = None, json: AsJson = False) -> None:
    """Show two studies side by side.

    Results, costs, the best parameters, and where their study files differ.

    Example: python -m coordinator compare digits digits-wide
    """
    from highnoon.coordinator.cli.comparison import comparison_object, comparison_table

    with reading(storage) as reader:
        sides = [_side(name, reader) for name in (study, other)]
    if json:
        print_json(comparison_object(*sides))
    else:
        print_table(comparison_table(*sides))


def _figure(study: StudySummary, kind: str, params: Sequence[str], reader: Reader) -> Figure:
    from highnoon.shared.store.attempt_queries import AttemptQueries
    from highnoon.shared.views.charts import FIGURES, figure_input

    view = reader.view(study.name)
    goals = view.objectives()
    trials = view.trials()
    names = list(study.spec.get("search_space") or ()) or list(view.space())
    known = [*names, *(goals if kind == "pareto" else ())]
    for param in params:
        if param not in known:
            raise mistake("--param", f"is no parameter of study {study.name}", param, nearest(param, known))
    if kind == "contour" and len(names) < 2:
        raise mistake("--kind", f"needs two parameters, and study {study.name} has one", kind)
    asked = figure_input(
        kind,
        trials,
        view.space(),
        view.direction.split(", "),
        objectives=goals,
        params=params,
        importance=view.param_importance,
        attempts=(AttemptQueries(reader.access.database), study.id) if reader.access and study.id is not None else None,
    )
    return FIGURES[kind](asked)


def _side(name: str, reader: Reader) -> Side:
    from highnoon.coordinator.cli.comparison import Side
    from highnoon.shared.store.attempt_queries import AttemptQueries

    summary, view, access = reader.study(name), reader.view(name), reader.access
    trials, best = view.trials(), view.best()
    return Side(
        summary=summary,
        space={name: written_form(param) for name, param in view.space().items()},
        best=best[0] if len(best) == 1 else None,
        trials=trials,
        first_start=AttemptQueries(access.database).first_start(summary.id) if access and summary.id else None,
        now=access.studies.clock() if access else 0.0,
    )


def _nothing_yet(study: StudySummary, why: str, storage: str | None) -> typer.Exit:
    return no_result(f"study {study.name}: {_inside(why)}", next_step=next_step(study, storage))


def _inside(sentence: str) -> str:
    """As a part of another sentence."""
    return f"{sentence[:1].lower()}{sentence[1:].rstrip('.')}"


def check_suffix(path: Path) -> None:
    """Raises InvalidInput for a file that cannot be written, before anything is drawn for it."""
    if path.suffix.lower() not in SUFFIXES:
        raise _wrong(path, "has no suffix of a figure's format", nearest(path.suffix or path.name, SUFFIXES))
    check_output_folder(path)
    if path.suffix.lower() in _PICTURES:
        try:
            import kaleido  # noqa: F401
        except ImportError:
            remedy = f"Install it: pip install kaleido. Or draw {path.with_suffix('.html')}, which needs none."
            raise _wrong(path, f"a {path.suffix[1:].upper()} needs the package kaleido", remedy) from None


def plotly_figure(figure: Figure, title: str) -> Any:
    """The figure as plotly's own, in the colours of a light page, with its title and note above it."""
    import plotly.graph_objects as plotly

    content = _coloured(figure.to_json(title=title))
    note = content["note"]
    height = {"height": content["layout"]["height"] + _TITLE_HEIGHT} if "height" in content["layout"] else {}
    heading = {"text": content["title"], **({"subtitle": {"text": note}} if note else {})}
    layout = {"template": "plotly_white", "hovermode": "closest", **content["layout"], **height, "title": heading}
    return plotly.Figure({"data": content["data"], "layout": layout})


def write_figure(figure: Any, path: Path) -> None:
    """Writes a plotly figure by the suffix. Raises InvalidInput when there is no browser that could make a picture."""
    if path.suffix.lower() == ".html":
        figure.write_html(path, include_plotlyjs=True)
    elif path.suffix.lower() == ".json":
        figure.write_json(path)
    else:
        try:
            figure.write_image(path, width=_WIDTH, height=figure.layout.height or _HEIGHT, scale=_SCALE)
        except (RuntimeError, ValueError) as error:  # kaleido finds no browser, or one that does not start
            why = " ".join(str(error).split()) or type(error).__name__
            remedy = f"Kaleido needs Chrome or Chromium; {path.with_suffix('.html')} needs none."
            raise _wrong(path, f"kaleido could not draw it: {why[:200]}", remedy) from error


def _coloured(value: Any) -> Any:
    if isinstance(value, str):
        return _COLOR_SCALES.get(value) or _COLORS.get(value, value)
    if isinstance(value, dict):
        return {key: _coloured(item) for key, item in value.items()}
    return [_coloured(item) for item in value] if isinstance(value, list) else value


def _wrong(path: Path, message: str, hint: str = "") -> InvalidInput:
    return mistake("--output", message, str(path), hint)
