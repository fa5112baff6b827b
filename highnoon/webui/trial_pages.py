"""The pages of trials: their list, one of them, some beside each other, and what is done with one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.extension import EXTENDS
from highnoon.shared.domain.sampler_spec import EXHAUSTIVE
from highnoon.shared.domain.states import MESSAGE, TRACEBACK, TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.search.population import GENERATION, MEMBER
from highnoon.shared.store import steering
from highnoon.shared.views.studies import StudySummary
from highnoon.shared.views.trials import metric_names
from highnoon.webui import forms
from highnoon.webui.app_state import AppState, FreshStudy, KnownStudy, KnownTrial, State, own_attempt
from highnoon.webui.listing import TrialQuery, choose_trials
from highnoon.webui.rendering import Sent, rendered, segment
from highnoon.webui.responses import redirect

router = APIRouter(include_in_schema=False)

Chosen = Annotated[list[int] | None, Query()]

_MOST_COMPARED = 20
_MOST_PARAMS = 20
"""Shown at first on the page of a trial."""


@router.get("/hpo/studies/{study:path}/trials/{number:int}")
def show_trial(request: Request, app: State, study: KnownStudy, trial: KnownTrial) -> Response:
    """One trial: its parameters, its results, where it ran, what it printed."""
    return _trial_page(request, app, study, trial)


def _trial_page(
    request: Request,
    app: AppState,
    study: StudySummary,
    trial: Trial,
    *,
    variation: Mapping[str, str] | None = None,
    problems: Sequence[Problem] = (),
) -> Response:
    """`variation` are the fields of a point that was refused for these problems."""
    attempts = app.attempts(study, trial)
    found = app.repository.trials(study.name)
    context = {
        "study": study,
        "trial": trial,
        "attempts": attempts,
        "note": app.notes(study).get(trial.number),
        "own": (own := own_attempt(trial, attempts)),
        "environment": app.environment(study, trial, own),
        "quoted_name": shlex.quote(study.name),
        "has_curves": trial.state is TrialState.RUNNING or app.has_metric_history(study, trial),
        "artifacts": app.repository.access().store.artifacts(study.name, trial.number).get(trial.number, ()),
        "can_extend": not app.points_left(study) and app.has_checkpoint(study, trial),
        "exhaustive": EXHAUSTIVE,
        "extends": trial.attrs.get(EXTENDS),
        "member": trial.attrs.get(MEMBER),
        "generation": trial.attrs.get(GENERATION),
        "space": found.space,
        "objectives": found.objectives,
        "message": str(trial.attrs.get(MESSAGE) or ""),
        "traceback": str(trial.attrs.get(TRACEBACK) or ""),
        "count": len(found.trials),
        "most": _MOST_PARAMS,
        "variation": variation or {},
        "problems": {problem.key: str(problem).partition(": ")[2] for problem in problems},
    }
    return rendered(request, "trial.html", context, status=422 if problems else 200)


@router.get("/hpo/studies/{study:path}/trials")
def list_trials(request: Request, app: State, study: KnownStudy, query: Annotated[TrialQuery, Query()]) -> Response:
    """Trials of a study, chosen and sorted."""
    found = app.repository.trials(study.name)
    page = choose_trials(found.trials, query, found.space, found.objectives)
    context = {
        "study": study,
        "page": page,
        "query": query,
        "names": list(found.space),
        "objectives": found.objectives,
        "causes": found.causes,
        "spans": app.spans(study, [trial.number for trial in page.items]),
        "notes": app.notes(study),
        "states": [str(state) for state in TrialState],
    }
    return rendered(request, "trials.html", context)


@router.get("/hpo/studies/{study:path}/compare")
def compare_trials(request: Request, app: State, study: KnownStudy, trial: Chosen = None) -> Response:
    """Some trials beside each other."""
    chosen = [app.trial(study, number) for number in dict.fromkeys((trial or [])[:_MOST_COMPARED])]
    context = {
        "study": study,
        "trials": chosen,
        "notes": app.notes(study),
        "objectives": app.repository.trials(study.name).objectives,
        "names": list(dict.fromkeys(name for one in chosen for name in one.params)),
        "metrics": metric_names(chosen),
    }
    return rendered(request, "compare.html", context)


@router.post("/hpo/studies/{study:path}/trials/{number:int}/retry")
def retry_trial(app: State, study: FreshStudy, number: int) -> Response:
    """Run a failed trial again."""
    app.actions.retry(study, app.trial(study, number).number)
    return redirect(f"/hpo/studies/{segment(study.name)}")


@router.post("/hpo/studies/{study:path}/trials/{number:int}/extend")
def extend_trial(app: State, sent: Sent, study: FreshStudy, number: int) -> Response:
    """Train a trial longer, as a new one."""
    app.actions.steer(study, steering.extend_trial, app.trial(study, number).number, forms.settings(sent))
    return redirect(f"/hpo/studies/{segment(study.name)}")


@router.post("/hpo/studies/{study:path}/trials/{number:int}/enqueue")
def enqueue_trial(request: Request, app: State, sent: Sent, study: FreshStudy, number: int) -> Response:
    """One more trial like this one; a point that cannot be is shown again, with a message beside each value."""
    trial = app.trial(study, number)
    try:
        point = forms.point(sent, app.repository.trials(study.name).space)
        app.actions.steer(study, steering.enqueue, point)
    except InvalidInput as invalid:
        return _trial_page(request, app, study, trial, variation=sent, problems=invalid.problems)
    return redirect(f"/hpo/studies/{segment(study.name)}")


@router.post("/hpo/studies/{study:path}/trials/{number:int}/note")
def annotate_trial(app: State, sent: Sent, study: FreshStudy, number: int) -> Response:
    """Write note and tags beside a trial."""
    annotate(app, sent, study, app.trial(study, number).number)
    return redirect(f"/hpo/studies/{segment(study.name)}/trials/{number}")


def annotate(app: AppState, sent: Mapping[str, str], study: StudySummary, number: int | None) -> None:
    """Writes note and tags of a form beside a study, or beside one of its trials."""
    tags = [tag.strip() for tag in sent.get("tags", "").split(",") if tag.strip()]
    app.actions.annotate(study, number, text=sent.get("note", ""), tags=tags, seen=sent.get("seen"))
