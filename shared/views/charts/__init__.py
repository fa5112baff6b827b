"""Figures as plotly's JSON, built from plain trials: for the pages and for `plot`. Pure: no I/O, no plotly, no Optuna.

Not taken from `optuna.visualization` for three reasons: at 10,000 trials its figures are megabytes (here whatever a
screen cannot show is left out, and the note gives the numbers), parallel coordinates there need WebGL and
`unsafe-eval`, and colours must follow the page. A colour is a name with a `$`, which the page replaces by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from highnoon.shared.domain.param import SearchSpace
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.charts.attempts import memory, outcomes, timeline
from highnoon.shared.views.charts.figure import Figure, FigureInput
from highnoon.shared.views.charts.metrics import metric_curves
from highnoon.shared.views.charts.objectives import hypervolume, pareto
from highnoon.shared.views.charts.parameters import contour, importance, parallel, slices
from highnoon.shared.views.charts.progress import history, intermediate
from highnoon.shared.views.trials import by_objective

if TYPE_CHECKING:
    from highnoon.shared.store.attempt_queries import AttemptQueries

__all__ = ["FIGURES", "NEEDS_ATTEMPTS", "TITLES", "Figure", "FigureInput", "figure_input", "metric_curves"]

FIGURES: Mapping[str, Callable[[FigureInput], Figure]] = {
    "history": history,
    "slice": slices,
    "parallel": parallel,
    "contour": contour,
    "importance": importance,
    "intermediate": intermediate,
    "timeline": timeline,
    "outcomes": outcomes,
    "memory": memory,
    "pareto": pareto,
    "hypervolume": hypervolume,
}
"""Every figure by its name in addresses."""

NEEDS_ATTEMPTS = frozenset({"timeline", "outcomes", "memory"})
"""Figures of the ledger's attempts (`FigureInput.spans` and `causes`)."""

_MOST_SPANS = 1500
"""How many of the newest attempts such a figure shows."""

TITLES: Mapping[str, str] = {
    "history": "optimisation history",
    "slice": "each parameter alone",
    "parallel": "all parameters together",
    "contour": "two parameters at a time",
    "importance": "importance of parameters",
    "intermediate": "reports of each trial",
    "timeline": "what ran when",
    "outcomes": "how attempts ended",
    "memory": "memory of each attempt",
    "pareto": "what no other trial beats in all",
    "hypervolume": "hypervolume of the front",
}
"""What stands above a figure in a file."""


def figure_input(
    kind: str,
    trials: Sequence[Trial],
    space: SearchSpace,
    directions: Sequence[str],
    *,
    importance: Callable[[], Mapping[str, float]],
    attempts: tuple[AttemptQueries, int] | None = None,
    objectives: Sequence[str] = (),
    objective: int = 0,
    params: Sequence[str] = (),
    most_params: int | None = None,
    raw: bool = False,
) -> FigureInput:
    """What a figure of this kind needs, and no more: `importance` is called, and `attempts` are read, only for it.

    `attempts` has queries, and the id of a study of the ledger. An empty one of two `params` of a contour, or one that
    is missing, is the one that matters most of the others.
    """
    ranks = kind == "importance" or (kind in ("slice", "parallel") and len(space) > (most_params or len(space)))
    chosen = list(filter(None, params))
    if kind == "contour" and len(chosen) < 2:
        others = (name for name in [*dict.fromkeys([*importance(), *space]), "", ""] if name not in chosen)
        across, up = (*params, "", "")[:2]
        chosen = [across or next(others), up or next(others)]
    queries, study_id = attempts if attempts and kind in NEEDS_ATTEMPTS else (None, 0)
    return FigureInput(
        trials=by_objective(trials, objective) if objectives else trials,
        space=space,
        maximize=directions[objective] == "maximize",
        objectives=objectives,
        directions=directions,
        objective=objective,
        params=chosen,
        most_params=most_params,
        raw=raw,
        spans=queries.spans(study_id, limit=_MOST_SPANS) if queries else (),
        causes=queries.causes(study_id) if queries else (),
        importance=importance() if ranks else {},
    )
