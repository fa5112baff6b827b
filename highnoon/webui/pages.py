"""The pages under /hpo. Each handler gathers what its template shows, or does one act and leads back to a page."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from highnoon.shared.domain.errors import InvalidInput, Problem, UnknownStudy
from highnoon.shared.domain.states import TrialState
from highnoon.shared.store.trial_results import TRACEBACK
from highnoon.webui import charts, exports, forms
from highnoon.webui.desk import Desk, desk_of
from highnoon.webui.drawings import sparkline
from highnoon.webui.formats import segment
from highnoon.webui.listing import StudyWish, TrialWish, choose_studies, choose_trials
from highnoon.webui.rendering import form_fields, shown
from highnoon.webui.snapshot import cause_of, ending_of
from highnoon.webui.studies import STATES, Study

router = APIRouter(include_in_schema=False)


Here = Annotated[Desk, Depends(desk_of)]
Sent = Annotated[dict[str, str], Depends(form_fields)]

_PER_PAGE = 50
_FEW = 9


@router.get("/")
def root() -> Response:
    """The way to the studies."""
    return RedirectResponse("/hpo", status_code=303)


@router.get("/hpo")
def browse(request: Request, desk: Here) -> Response:
    """All studies."""
    asked = request.query_params
    wish = StudyWish(
        text=asked.get("q", ""), state=asked.get("state", ""), sort=asked.get("sort", ""), page=_page(request)
    )
    studies = desk.library.studies()
    page = choose_studies(studies, wish)
    has_ledger = desk.library.has_ledger()
    sparks = {study.name: _spark(desk, study) for study in page.items}
    context = {"page": page, "wish": wish, "total": len(studies), "sparks": sparks, "states": STATES}
    return shown(request, "studies.html", {**context, "has_ledger": has_ledger})


@router.get("/hpo/cluster")
def cluster(request: Request, desk: Here) -> Response:
    """Who is there and what it does."""
    found = desk.cluster() if desk.library.has_ledger() else None
    return shown(request, "cluster.html", {"cluster": found, "flower_url": desk.settings.flower_url})


@router.post("/hpo/workers/{worker}/{act}")
def steer_worker(desk: Here, worker: str, act: Literal["drain", "reinstate"]) -> Response:
    """Drain a worker, or take it out of quarantine."""
    acts = {"drain": desk.fleet.drain, "reinstate": desk.fleet.reinstate}
    acts[act](worker)
    return RedirectResponse("/hpo/cluster", status_code=303)


@router.get("/hpo/studies/{name:path}/trials/{number:int}")
def show_trial(request: Request, desk: Here, name: str, number: int) -> Response:
    """One trial: its point, how it went, where it ran, what it printed."""
    study = desk.library.study(name)
    trial = desk.trial(study, number)
    attempts = desk.attempts(study, trial)
    own = next((attempt for attempt in attempts if attempt.trial_number == number), None)
    context = {
        "study": study,
        "trial": trial,
        "attempts": attempts,
        "own": own,
        "space": desk.library.snapshot(study.name).space,
    }
    told = {"message": desk.message_of(trial), "traceback": str(trial.attrs.get(TRACEBACK) or "")}
    return shown(request, "trial.html", {**context, **told, "count": len(desk.library.snapshot(study.name).trials)})


@router.get("/hpo/studies/{name:path}/trials")
def list_trials(request: Request, desk: Here, name: str) -> Response:
    """Trials of a study, chosen and sorted."""
    study = desk.library.study(name)
    asked = request.query_params
    wish = TrialWish(
        state=asked.get("state", ""),
        cause=asked.get("cause", ""),
        sort=asked.get("sort", "-number"),
        page=_page(request),
        per_page=_PER_PAGE,
    )
    snapshot = desk.library.snapshot(study.name)
    names = list(snapshot.space)
    page = choose_trials(snapshot.trials, wish, names)
    causes = sorted({word for trial in snapshot.trials for word in (cause_of(trial), ending_of(trial)) if word})
    context = {"study": study, "page": page, "wish": wish, "names": names, "causes": causes}
    spans = desk.spans(study, [trial.number for trial in page.items])
    return shown(request, "trials.html", {**context, "spans": spans, "states": [str(state) for state in TrialState]})


@router.post("/hpo/studies/{name:path}/trials/{number:int}/retry")
def retry_trial(desk: Here, name: str, number: int) -> Response:
    """Another go for a failed trial."""
    study = desk.library.study(name, fresh=True)
    desk.steering.retry(study, desk.trial(study, number).number)
    return RedirectResponse(f"/hpo/studies/{segment(study.name)}", status_code=303)


@router.post("/hpo/studies/{name:path}/enqueue")
def enqueue_trial(desk: Here, sent: Sent, name: str) -> Response:
    """One more trial at a point that a person wrote."""
    study = desk.library.study(name, fresh=True)
    desk.steering.enqueue(study, forms.point(sent, desk.library.snapshot(study.name).space))
    return RedirectResponse(f"/hpo/studies/{segment(study.name)}", status_code=303)


@router.post("/hpo/studies/{name:path}/{act}")
def steer(desk: Here, sent: Sent, name: str, act: str) -> Response:
    """Pause, resume, cancel, add trials, delete."""
    study = desk.library.study(name, fresh=True)
    acts = {"pause": desk.steering.pause, "resume": desk.steering.resume, "cancel": desk.steering.cancel}
    if act == "add":
        count = sent.get("count", "")
        if not count.isdecimal() or len(count) > 7:
            raise InvalidInput("request", [Problem(key="count", message="must be a whole number", value=count)])
        desk.steering.add_trials(study, int(count))
    elif act == "delete":
        desk.steering.delete(study)
        return RedirectResponse("/hpo", status_code=303)
    elif act in acts:
        acts[act](study)
    else:
        raise UnknownStudy("There is no such page.")
    return RedirectResponse(f"/hpo/studies/{segment(study.name)}", status_code=303)


@router.get("/hpo/studies/{name:path}")
def show_study(request: Request, desk: Here, name: str) -> Response:
    """One study: how far, how good, and its figures."""
    study = desk.library.study(name)
    snapshot = desk.library.snapshot(study.name)
    best = snapshot.best
    running = desk.library.overview().running(study.id) if study.record is not None else []
    context = {
        "study": study,
        "best": best,
        "running": running,
        "recent": list(reversed(snapshot.trials[-_FEW:])),
        "names": list(snapshot.space),
        "space": snapshot.written_space or study.spec.get("search_space", {}),
        "has_loss": any(trial.params_count is not None for trial in snapshot.trials),
        "has_reports": any(trial.reports for trial in snapshot.trials),
        "eta_s": _eta_s(study),
    }
    return shown(request, "study.html", {**context, "formats": exports.BEST, "figures": charts.FIGURES})


@router.get("/docs")
def docs(request: Request) -> Response:
    """The API, explained without files from elsewhere."""
    return shown(request, "docs.html", {"schema": request.app.openapi()})


def _page(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return int(text) if text.isdecimal() and len(text) < 8 else 1


def _spark(desk: Desk, study: Study) -> str:
    """From the ledger's values; a study of somebody else has none."""
    if study.record is None or study.complete < 2:
        return ""
    return sparkline(desk.values(study), maximize=study.maximize)


def _eta_s(study: Study) -> float | None:
    """By the pace so far; None where there is none, or nothing is left."""
    record = study.record
    if record is None or record.started_at is None or not study.is_live or study.over < 3 or study.over >= study.total:
        return None
    passed = time.time() - record.started_at
    return passed / study.over * (study.total - study.over) if passed > 0 else None
