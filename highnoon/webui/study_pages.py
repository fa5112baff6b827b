"""The page of a study, and what is done with it: its progress, its best trials, its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from fastapi import APIRouter, Request, Response

from highnoon.shared.domain.errors import InvalidInput, UnknownStudy
from highnoon.shared.domain.param import listed_form
from highnoon.shared.domain.space import read_space
from highnoon.shared.domain.states import MESSAGE, TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store import steering
from highnoon.shared.views.best_config import BEST, FRONT
from highnoon.shared.views.studies import StudySummary
from highnoon.shared.views.trials import has_ended
from highnoon.webui import forms
from highnoon.webui.app_state import FreshStudy, KnownStudy, State
from highnoon.webui.rendering import Sent, rendered, segment
from highnoon.webui.responses import redirect
from highnoon.webui.results import MOST_PARAMS
from highnoon.webui.trial_pages import annotate

router = APIRouter(include_in_schema=False)

_NEWEST = 9
_PACE_OF = 30
"""By how many of the last trials the time to go is estimated."""


@router.post("/hpo/studies/{study:path}/{act}")
def steer(app: State, sent: Sent, study: FreshStudy, act: str) -> Response:
    """Pause, resume, cancel, add trials, write note and tags, delete."""
    acts = {"pause": steering.pause, "resume": steering.resume, "cancel": steering.cancel}
    if act == "add":
        app.actions.steer(study, steering.add_trials, _whole(sent, "count"))
    elif act == "set":
        limit = _whole(sent, "max_running") if sent.get("max_running") else 0
        app.actions.steer(study, steering.set_share, priority=_whole(sent, "priority"), max_running=limit)
    elif act == "note":
        annotate(app, sent, study, None)
    elif act == "delete":
        app.actions.delete(study)
        return redirect("/hpo")
    elif act in acts:
        app.actions.steer(study, acts[act])
    else:
        raise UnknownStudy("There is no such page.")
    return redirect(f"/hpo/studies/{segment(study.name)}")


def _whole(sent: Mapping[str, str], field: str) -> int:
    """Raises InvalidInput."""
    text = sent.get(field, "")
    if not text.isdecimal() or len(text) > 7:
        raise InvalidInput.of("request", field, "must be a whole number", value=text)
    return int(text)


@router.get("/hpo/studies/{study:path}")
def show_study(request: Request, app: State, study: KnownStudy) -> Response:
    """One study: its progress, its best trial, and its figures."""
    found = app.repository.trials(study.name)
    asked = read_space(study.spec.get("search_space", {}))[0]
    running = app.repository.queries().attempts.running(study.id) if study.record is not None else []
    steps = {trial.number: trial.reports[-1].step for trial in found.not_ended if trial.reports}
    context = {
        "study": study,
        "best": found.best,
        "notes": (notes := app.notes(study)),
        "note": notes.get(None),
        "front": found.front,
        "failure": None if study.complete else _newest_failure(found.trials),
        "message_key": MESSAGE,
        "objectives": found.objectives,
        "front_formats": FRONT,
        "running": running,
        # A lease brings the step every few seconds; a report is there at once.
        "steps": {run.trial_number: max(run.step or 0, steps.get(run.trial_number or -1, 0)) for run in running},
        "recent": list(reversed(found.trials[-_NEWEST:])),
        "names": list(found.space),
        "space": {name: listed_form(param) for name, param in {**asked, **found.space}.items()},
        "conditions": {name: forms.conditions(param) for name, param in asked.items() if param.when},
        "constraints": study.spec.get("param_constraints", ()),
        "has_loss": found.has_sizes,
        "points_left": app.points_left(study),
        "eta_s": eta_s(study, found.trials),
        "formats": BEST,
        "most": MOST_PARAMS,
    }
    return rendered(request, "study.html", context)


def _newest_failure(trials: Sequence[Trial]) -> Trial | None:
    return next((trial for trial in reversed(trials) if trial.state is TrialState.FAIL), None)


def eta_s(study: StudySummary, trials: Sequence[Trial]) -> float | None:
    """By the time that the last trials took and how many run at a time; None while none runs, or nothing is left."""
    left = study.total - study.closed
    if study.record is None or not study.running or left <= 0:
        return None
    newest = (trial.duration_s for trial in reversed(trials) if has_ended(trial))
    took = list(islice((seconds for seconds in newest if seconds is not None), _PACE_OF))
    if len(took) < 3:
        return None
    return sum(took) / len(took) * left / study.running
