"""The page that shows some studies beside each other: how far they are, their best trials, and what they ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.studies import differences
from highnoon.webui.app_state import State
from highnoon.webui.pages import spark
from highnoon.webui.rendering import rendered

router = APIRouter(include_in_schema=False)

Names = Annotated[list[str] | None, Query()]

_MOST_COMPARED = 10


@router.get("/hpo/compare")
def compare_studies(request: Request, app: State, study: Names = None) -> Response:
    """Some studies beside each other."""
    studies = [app.repository.study(name) for name in dict.fromkeys((study or [])[:_MOST_COMPARED])]
    found = {one.name: app.repository.trials(one.name) for one in studies}
    best = {name: trials.best or next(iter(trials.front), None) for name, trials in found.items()}
    context = {
        "studies": studies,
        "best": best,
        "fronts": {name: len(trials.front) for name, trials in found.items()},
        "sparks": {one.name: spark(app, one) for one in studies},
        "names": list(dict.fromkeys(name for trial in best.values() if trial for name in trial.params)),
        "metrics": _metrics(best.values()),
        "differences": [
            (key, ["–" if value is None else dumps(value) for value in values])
            for key, values in differences([one.spec for one in studies])
        ],
    }
    return rendered(request, "compare_studies.html", context)


def _metrics(best: Iterable[Trial | None]) -> list[str]:
    return sorted({name for trial in best if trial for name in trial.metrics})
