"""The page that shows some studies beside each other: how far they are, their best trials, and what they ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.studies import NOT_COMPARED, StudySummary
from highnoon.webui.app_state import State
from highnoon.webui.pages import spark
from highnoon.webui.rendering import shown

router = APIRouter(include_in_schema=False)

Names = Annotated[list[str] | None, Query()]

_MOST_COMPARED = 10


@router.get("/hpo/compare")
def compare_studies(request: Request, app: State, study: Names = None) -> Response:
    """Some studies beside each other."""
    studies = [app.repository.study(name) for name in dict.fromkeys((study or [])[:_MOST_COMPARED])]
    best = {one.name: app.repository.trials(one.name).best for one in studies}
    context = {
        "studies": studies,
        "best": best,
        "sparks": {one.name: spark(app, one) for one in studies},
        "names": list(dict.fromkeys(name for trial in best.values() if trial for name in trial.params)),
        "metrics": _metrics(best.values()),
        "differences": list(_differences(studies)),
    }
    return shown(request, "compare_studies.html", context)


def _metrics(best: Iterable[Trial | None]) -> list[str]:
    return sorted({name for trial in best if trial for name in trial.metrics})


def _differences(studies: Sequence[StudySummary]) -> Iterator[tuple[str, list[str]]]:
    """Each key of their specifications whose values are not the same in all, with them as text."""
    specs: list[Mapping[str, Any]] = [study.spec for study in studies]
    for key in sorted({key for spec in specs for key in spec} - NOT_COMPARED):
        values = [dumps(spec[key]) if key in spec else "–" for spec in specs]
        if len(set(values)) > 1:
            yield key, values
