"""The pages under /hpo, and logging in and out.

Each handler gathers what its template shows, or executes one action and redirects.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from highnoon.shared.domain.errors import InvalidInput, Problem, StudyConflict, UnknownStudy
from highnoon.shared.domain.space import listed_form, read_space
from highnoon.shared.domain.states import MESSAGE, TRACEBACK, TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.best_config import BEST, FRONT
from highnoon.shared.views.studies import STATES, StudySummary
from highnoon.shared.views.trials import cause_of, ending_of, has_ended, metric_names
from highnoon.webui import forms
from highnoon.webui.app_state import AppState, FreshStudy, KnownStudy, KnownTrial, State, own_attempt
from highnoon.webui.listing import StudyQuery, TrialQuery, choose_studies, choose_trials
from highnoon.webui.rendering import authentication_of, form_fields, segment, shown, sparkline
from highnoon.webui.results import MOST_PARAMS

router = APIRouter(include_in_schema=False)

Sent = Annotated[dict[str, str], Depends(form_fields)]
Chosen = Annotated[list[int] | None, Query()]

_NEWEST = 9
_MOST_COMPARED = 20
_PACE_OF = 30
"""By how many of the last trials the time to go is estimated."""


@router.get("/")
def root() -> Response:
    """The way to the studies."""
    return _redirect("/hpo")


@router.get("/hpo")
def browse(request: Request, app: State, query: Annotated[StudyQuery, Query()]) -> Response:
    """All studies."""
    studies = app.repository.studies()
    page = choose_studies(studies, query)
    context = {
        "page": page,
        "query": query,
        "total": len(studies),
        "sparks": {study.name: _spark(app, study) for study in page.items},
        "states": STATES,
        "has_ledger": app.repository.has_ledger(),
    }
    return shown(request, "studies.html", context)


@router.get("/hpo/cluster")
def cluster(request: Request, app: State) -> Response:
    """Workers, queues and leases."""
    found = app.cluster() if app.repository.has_ledger() else None
    context = {
        "cluster": found,
        "flower_url": app.settings.flower_url,
        "may_drain": found is not None and not app.worker_actions.belong_to_start(),
    }
    return shown(request, "cluster.html", context)


@router.post("/hpo/workers/{worker}/{act}")
def steer_worker(app: State, worker: str, act: Literal["drain", "reinstate"]) -> Response:
    """Drain a worker, or take it out of quarantine."""
    acts = {"drain": app.worker_actions.drain, "reinstate": app.worker_actions.reinstate}
    acts[act](worker)
    return _redirect("/hpo/cluster")


@router.get("/hpo/new")
def new_study(request: Request, app: State) -> Response:
    """The form of a new study, or of one like another."""
    like = request.query_params.get("like")
    form = forms.StudyForm(values={"n_trials": "50", "direction": "minimize"})
    if like is not None:
        study = app.repository.study(like)
        if study.record is not None:
            form = forms.form_of(study.spec, name=f"{study.name}-2")
    return _form(request, app, form)


@router.post("/hpo/new")
def create_study(request: Request, app: State, sent: Sent) -> Response:
    """Checks the form and submits it; with mistakes it is shown again, with a message beside each field."""
    form = forms.read_form(sent)
    if sent.get("action") == "add":
        return _form(request, app, forms.with_row(form))
    try:
        if problems := forms.duplicates(form):
            raise InvalidInput("study", problems)
        submission = app.actions.create(forms.written(form))
    except InvalidInput as invalid:
        return _form(request, app, forms.with_problems(form, invalid.problems), status=422)
    except StudyConflict as conflict:
        problem = Problem(key="name", message=str(conflict))
        return _form(request, app, forms.with_problems(form, [problem]), status=409)
    return _redirect(f"/hpo/studies/{segment(submission.spec.name)}")


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
        "environment": app.environment(study, own),
        "quoted_name": shlex.quote(study.name),
        "artifacts": app.repository.access().store.artifacts(study.name, trial.number).get(trial.number, ()),
        "space": found.space,
        "objectives": found.objectives,
        "message": str(trial.attrs.get(MESSAGE) or ""),
        "traceback": str(trial.attrs.get(TRACEBACK) or ""),
        "count": len(found.trials),
        "variation": variation or {},
        "problems": {problem.key: str(problem).partition(": ")[2] for problem in problems},
    }
    return shown(request, "trial.html", context, status=422 if problems else 200)


@router.get("/hpo/studies/{study:path}/trials")
def list_trials(request: Request, app: State, study: KnownStudy, query: Annotated[TrialQuery, Query()]) -> Response:
    """Trials of a study, chosen and sorted."""
    found = app.repository.trials(study.name)
    names = list(found.space)
    page = choose_trials(found.trials, query, names, found.objectives)
    context = {
        "study": study,
        "page": page,
        "query": query,
        "names": names,
        "objectives": found.objectives,
        "causes": sorted({word for trial in found.trials for word in (cause_of(trial), ending_of(trial)) if word}),
        "spans": app.spans(study, [trial.number for trial in page.items]),
        "notes": app.notes(study),
        "states": [str(state) for state in TrialState],
    }
    return shown(request, "trials.html", context)


@router.get("/hpo/studies/{study:path}/compare")
def compare_trials(request: Request, app: State, study: KnownStudy, trial: Chosen = None) -> Response:
    """Some trials beside each other."""
    chosen = [app.trial(study, number) for number in dict.fromkeys((trial or [])[:_MOST_COMPARED])]
    context = {
        "study": study,
        "trials": chosen,
        "notes": app.notes(study),
        "names": list(dict.fromkeys(name for one in chosen for name in one.params)),
        "metrics": metric_names(chosen),
    }
    return shown(request, "compare.html", context)


@router.post("/hpo/studies/{study:path}/trials/{number:int}/retry")
def retry_trial(app: State, study: FreshStudy, number: int) -> Response:
    """Run a failed trial again."""
    app.actions.retry(study, app.trial(study, number).number)
    return _redirect(f"/hpo/studies/{segment(study.name)}")


@router.post("/hpo/studies/{study:path}/trials/{number:int}/enqueue")
def enqueue_trial(request: Request, app: State, sent: Sent, study: FreshStudy, number: int) -> Response:
    """One more trial like this one; a point that cannot be is shown again, with a message beside each value."""
    trial = app.trial(study, number)
    try:
        app.actions.enqueue(study, forms.point(sent, app.repository.trials(study.name).space))
    except InvalidInput as invalid:
        return _trial_page(request, app, study, trial, variation=sent, problems=invalid.problems)
    return _redirect(f"/hpo/studies/{segment(study.name)}")


@router.post("/hpo/studies/{study:path}/trials/{number:int}/note")
def annotate_trial(app: State, sent: Sent, study: FreshStudy, number: int) -> Response:
    """Write note and tags beside a trial."""
    _annotate(app, sent, study, app.trial(study, number).number)
    return _redirect(f"/hpo/studies/{segment(study.name)}/trials/{number}")


def _annotate(app: AppState, sent: Mapping[str, str], study: StudySummary, number: int | None) -> None:
    tags = [tag.strip() for tag in sent.get("tags", "").split(",") if tag.strip()]
    app.actions.annotate(study, number, text=sent.get("note", ""), tags=tags)


@router.post("/hpo/studies/{study:path}/{act}")
def steer(app: State, sent: Sent, study: FreshStudy, act: str) -> Response:
    """Pause, resume, cancel, add trials, write note and tags, delete."""
    acts = {"pause": app.actions.pause, "resume": app.actions.resume, "cancel": app.actions.cancel}
    if act == "add":
        app.actions.add_trials(study, _whole(sent, "count"))
    elif act == "set":
        limit = _whole(sent, "max_running") if sent.get("max_running") else 0
        app.actions.set_share(study, _whole(sent, "priority"), limit)
    elif act == "note":
        _annotate(app, sent, study, None)
    elif act == "delete":
        app.actions.delete(study)
        return _redirect("/hpo")
    elif act in acts:
        acts[act](study)
    else:
        raise UnknownStudy("There is no such page.")
    return _redirect(f"/hpo/studies/{segment(study.name)}")


def _whole(sent: Mapping[str, str], field: str) -> int:
    """Raises InvalidInput."""
    text = sent.get(field, "")
    if not text.isdecimal() or len(text) > 7:
        raise InvalidInput("request", [Problem(key=field, message="must be a whole number", value=text)])
    return int(text)


@router.get("/hpo/studies/{study:path}")
def show_study(request: Request, app: State, study: KnownStudy) -> Response:
    """One study: its progress, its best trial, and its figures."""
    found = app.repository.trials(study.name)
    asked = read_space(study.spec.get("search_space", {}))[0]
    running = app.repository.queries().running(study.id) if study.record is not None else []
    steps = {trial.number: trial.reports[-1].step for trial in found.trials if trial.reports and not has_ended(trial)}
    context = {
        "study": study,
        "best": found.best,
        "front": found.front,
        "objectives": found.objectives,
        "front_formats": FRONT,
        "notes": (notes := app.notes(study)),
        "note": notes.get(None),
        "running": running,
        # A lease brings the step every few seconds; a report is there at once.
        "steps": {run.trial_number: max(run.step or 0, steps.get(run.trial_number or -1, 0)) for run in running},
        "recent": list(reversed(found.trials[-_NEWEST:])),
        "names": list(found.space),
        "space": {name: listed_form(param) for name, param in {**asked, **found.space}.items()},
        "conditions": {name: forms.conditions(param) for name, param in asked.items() if param.when},
        "constraints": study.spec.get("param_constraints", ()),
        "has_loss": any(trial.params_count is not None for trial in found.trials),
        "eta_s": eta_s(study, found.trials),
        "formats": BEST,
        "most": MOST_PARAMS,
    }
    return shown(request, "study.html", context)


@router.get("/docs")
def docs(request: Request) -> Response:
    """The API, explained without files from elsewhere."""
    return shown(request, "docs.html", {"schema": request.app.openapi()})


@router.get("/login")
def login_page(request: Request) -> Response:
    """The form for the token."""
    if authentication_of(request).authenticator.is_open:
        return _redirect("/hpo")
    return shown(request, "login.html", {"next": _local(request.query_params.get("next", "")), "wrong": ""})


@router.post("/login")
def login(request: Request, sent: Sent) -> Response:
    """Starts a session for a right token. Too many wrong ones are refused for a while."""
    authentication = authentication_of(request)
    holder = authentication.check_token(request, sent.get("token", "").strip())
    there = _local(sent.get("next", ""))
    if holder is None:
        return shown(request, "login.html", {"next": there, "wrong": "This token is not the right one."}, status=401)
    answer = _redirect(there)
    session = authentication.authenticator.new_session(holder)
    answer.headers["set-cookie"] = authentication.cookie(session, secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    """Removes the session from this browser."""
    answer = _redirect("/login")
    answer.headers["set-cookie"] = authentication_of(request).cookie("", secure=False, max_age_s=0)
    return answer


def _redirect(address: str) -> Response:
    return RedirectResponse(address, status_code=303)


def _form(request: Request, app: AppState, form: forms.StudyForm, *, status: int = 200) -> Response:
    studies = app.repository.studies()
    allowed = app.actions.allowed
    context = {
        "form": form,
        "objectives": allowed.suggestions(studies),
        "folders": allowed.folders(studies),
        "samplers": forms.SAMPLERS,
        "pruners": forms.PRUNERS,
        "directions": forms.DIRECTIONS,
        "kinds": forms.SPACE_KINDS,
        "patterns": app.settings.objectives,
        "has_ledger": app.repository.has_ledger(),
    }
    return shown(request, "new.html", context, status=status)


def _spark(app: AppState, study: StudySummary) -> str:
    """From the ledger's values; a study without a coordinator has none."""
    if study.record is None or study.complete < 2:
        return ""
    return sparkline(app.values(study), maximize=study.maximize)


def eta_s(study: StudySummary, trials: Sequence[Trial]) -> float | None:
    """By the time that the last trials took and how many run at a time; None while none runs, or nothing is left."""
    left = study.total - study.over
    took = [trial.duration_s for trial in trials if has_ended(trial) and trial.duration_s is not None][-_PACE_OF:]
    if study.record is None or not study.running or left <= 0 or len(took) < 3:
        return None
    return sum(took) / len(took) * left / study.running


def _local(address: str) -> str:
    """Only our own pages: never `//elsewhere` or `https:`."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_ours and "\\" not in address else "/hpo"
