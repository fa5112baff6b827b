"""The pages of all studies, of the cluster, of a new study and of the API.

Each handler gathers what its template shows, or executes one action and redirects.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from highnoon.shared.domain.errors import InvalidInput, Problem, StudyConflict
from highnoon.shared.views.studies import STATES, StudySummary
from highnoon.webui import forms
from highnoon.webui.app_state import AppState, State
from highnoon.webui.listing import StudyQuery, choose_studies
from highnoon.webui.rendering import Sent, rendered, segment, sparkline
from highnoon.webui.responses import redirect

router = APIRouter(include_in_schema=False)


@router.get("/")
def root() -> Response:
    """The way to the studies."""
    return redirect("/hpo")


@router.get("/hpo")
def browse(request: Request, app: State, query: Annotated[StudyQuery, Query()]) -> Response:
    """All studies."""
    studies = app.repository.studies()
    page = choose_studies(studies, query)
    context = {
        "page": page,
        "query": query,
        "total": len(studies),
        "tags": app.tags(),
        "sparks": {study.name: spark(app, study) for study in page.items},
        "states": STATES,
        "has_ledger": app.repository.has_ledger(),
    }
    return rendered(request, "studies.html", context)


@router.get("/hpo/cluster")
def cluster(request: Request, app: State) -> Response:
    """Workers, queues and leases."""
    found = app.cluster() if app.repository.has_ledger() else None
    context = {
        "cluster": found,
        "flower_url": app.settings.flower_url,
        "may_drain": found is not None and not app.worker_actions.belong_to_start(),
    }
    return rendered(request, "cluster.html", context)


@router.post("/hpo/workers/{worker}/{act}")
def steer_worker(app: State, worker: str, act: Literal["drain", "reinstate"]) -> Response:
    """Drain a worker, or take it out of quarantine."""
    acts = {"drain": app.worker_actions.drain, "reinstate": app.worker_actions.reinstate}
    acts[act](worker)
    return redirect("/hpo/cluster")


@router.get("/hpo/new")
def new_study(request: Request, app: State) -> Response:
    """The form of a new study, or of one like another."""
    like = request.query_params.get("like")
    form = forms.StudyForm(values={"n_trials": "50", "direction": "minimize"})
    if like is not None:
        study = app.repository.study(like)
        if study.record is not None:
            form = forms.form_of(study.full_spec, name=f"{study.name}-2")
    return _form(request, app, form)


@router.post("/hpo/new")
def create_study(request: Request, app: State, sent: Sent) -> Response:
    """Checks the form and submits it; with mistakes it is shown again, with a message beside each field."""
    form = forms.read_form(sent)
    if sent.get("action") == "add":
        return _form(request, app, forms.with_row(form))
    try:
        if problems := forms.mistakes(form):
            app.actions.check(forms.written(form))
            raise InvalidInput("study", problems)
        submission = app.actions.create(forms.written(form))
    except InvalidInput as invalid:
        return _form(request, app, forms.with_problems(form, invalid.problems), status=422)
    except StudyConflict as conflict:
        problem = Problem(key="name", message=str(conflict))
        return _form(request, app, forms.with_problems(form, [problem]), status=409)
    return redirect(f"/hpo/studies/{segment(submission.spec.name)}")


@router.get("/docs")
def docs(request: Request) -> Response:
    """The API, explained without files from elsewhere."""
    return rendered(request, "docs.html", {"schema": request.app.openapi()})


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
    return rendered(request, "new.html", context, status=status)


def spark(app: AppState, study: StudySummary) -> str:
    """From the ledger's values; a study without a coordinator has none."""
    if study.record is None or study.complete < 2:
        return ""
    return sparkline(app.values(study), maximize=study.maximize)
