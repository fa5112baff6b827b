"""The pages under /hpo. Each handler gathers what its template shows, or does one act and leads back to a page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from highnoon.webui import assets, charts, exports, forms
from highnoon.webui.desk import Desk, desk_of
from highnoon.webui.formats import FILTERS, segment, sparkline
from highnoon.webui.guard import Guard
from highnoon.webui.library import STATES, Study, cause_of, ending_of
from highnoon.webui.listing import StudyWish, TrialWish, choose_studies, choose_trials
from highnoon.webui.sessions import Visitor
from shared.errors import InvalidInput, Problem, StudyConflict, UnknownStudy
from shared.states import TrialState
from shared.studies.endings import TRACEBACK

router = APIRouter(include_in_schema=False)


async def _form_fields(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


Here = Annotated[Desk, Depends(desk_of)]
Sent = Annotated[dict[str, str], Depends(_form_fields)]

_PER_PAGE = 50
_FEW = 12

_environment = Environment(
    loader=PackageLoader("highnoon.webui", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(FILTERS)
_environment.globals.update(asset=assets.address, cause_of=cause_of, ending_of=ending_of)
_templates = Jinja2Templates(env=_environment)


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
    shown = {"page": page, "wish": wish, "total": len(studies), "sparks": sparks, "states": STATES}
    return _shown(request, "studies.html", {**shown, "has_ledger": has_ledger})


@router.get("/hpo/new")
def new_study(request: Request, desk: Here) -> Response:
    """The form of a new study, or of one like another."""
    like = request.query_params.get("like")
    form = forms.StudyForm(values={"n_trials": "50", "direction": "minimize"})
    if like is not None:
        study = desk.library.study(like)
        if study.record is not None:
            form = forms.form_of(study.spec, name=f"{study.name}-2")
    return _form(request, desk, form)


@router.post("/hpo/new")
def create_study(request: Request, desk: Here, sent: Sent) -> Response:
    """Checks the form and submits it; with mistakes it is shown again, with a message beside each field."""
    form = forms.read_form(sent)
    if sent.get("action") == "add":
        return _form(request, desk, forms.with_row(form))
    problems = forms.duplicates(form)
    try:
        if problems:
            raise InvalidInput("study", problems)
        submission = desk.steering.create(forms.written(form))
    except InvalidInput as invalid:
        return _form(request, desk, forms.with_problems(form, invalid.problems), status=422)
    except StudyConflict as conflict:
        problem = Problem(key="name", message=str(conflict))
        return _form(request, desk, forms.with_problems(form, [problem]), status=409)
    return RedirectResponse(f"/hpo/studies/{segment(submission.spec.name)}", status_code=303)


@router.get("/hpo/cluster")
def cluster(request: Request, desk: Here) -> Response:
    """Who is there and what it does."""
    found = desk.cluster() if desk.library.has_ledger() else None
    return _shown(request, "cluster.html", {"cluster": found, "flower_url": desk.settings.flower_url})


@router.get("/hpo/studies/{name:path}/trials/{number:int}")
def show_trial(request: Request, desk: Here, name: str, number: int) -> Response:
    """One trial: its point, how it went, where it ran, what it printed."""
    study = desk.library.study(name)
    trial = desk.trial(study, number)
    attempts = desk.attempts(study, trial)
    own = next((attempt for attempt in attempts if attempt.trial_number == number), None)
    shown = {
        "study": study,
        "trial": trial,
        "attempts": attempts,
        "own": own,
        "space": desk.library.snapshot(study.name).space,
    }
    told = {"message": desk.message_of(trial), "traceback": str(trial.attrs.get(TRACEBACK) or "")}
    return _shown(request, "trial.html", {**shown, **told, "count": len(desk.library.snapshot(study.name).trials)})


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
    shown = {"study": study, "page": page, "wish": wish, "names": names, "causes": causes}
    spans = desk.spans(study, [trial.number for trial in page.items])
    return _shown(request, "trials.html", {**shown, "spans": spans, "states": [str(state) for state in TrialState]})


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
    shown = {
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
    return _shown(request, "study.html", {**shown, "formats": exports.BEST, "figures": charts.FIGURES})


@router.get("/docs")
def docs(request: Request) -> Response:
    """The API, explained without files from elsewhere."""
    return _shown(request, "docs.html", {"schema": request.app.openapi()})


@router.get("/login")
def login_page(request: Request) -> Response:
    """Asks for the token."""
    if _guard(request).is_open:
        return RedirectResponse("/hpo", status_code=303)
    return _shown(request, "login.html", {"next": _local(request.query_params.get("next", "")), "wrong": ""})


@router.post("/login")
def login(request: Request, sent: Sent) -> Response:
    """Lets in who knows a token. Too many wrong ones are refused for a while."""
    guard = _guard(request)
    role = guard.check_token(request, sent.get("token", "").strip())
    there = _local(sent.get("next", ""))
    if role is None:
        return _shown(request, "login.html", {"next": there, "wrong": "This token is not the right one."}, status=401)
    answer = RedirectResponse(there, status_code=303)
    answer.headers["set-cookie"] = guard.session_cookie(role, secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    """Forgets the session in this browser."""
    answer = RedirectResponse("/login", status_code=303)
    answer.headers["set-cookie"] = _guard(request).cookie("", secure=False, max_age_s=0)
    return answer


def error_page(request: Request, status: int, detail: str, problems: Sequence[Problem] = ()) -> Response:
    """What went wrong, for a person, and the way on."""
    title = {404: "Not found", 409: "Not now", 422: "That cannot work", 503: "The database is away"}
    shown = {
        "status": status,
        "title": title.get(status, HTTPStatus(status).phrase),
        "detail": detail,
        "problems": problems,
    }
    return _shown(request, "error.html", shown, status=status)


def _form(request: Request, desk: Desk, form: forms.StudyForm, *, status: int = 200) -> Response:
    studies = desk.library.studies()
    allowed = desk.steering.allowed
    shown = {"form": form, "objectives": allowed.suggestions(studies), "folders": allowed.folders(studies)}
    choices = {"samplers": forms.SAMPLERS, "pruners": forms.PRUNERS, "directions": forms.DIRECTIONS}
    more = {"kinds": forms.SPACE_KINDS, "patterns": desk.settings.objectives, "has_ledger": desk.library.has_ledger()}
    return _shown(request, "new.html", {**shown, **choices, **more}, status=status)


def _shown(request: Request, template: str, context: Mapping[str, Any], *, status: int = 200) -> Response:
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    here = {
        "visitor": visitor,
        "csrf": visitor.csrf if visitor else "",
        "may_steer": visitor is not None and visitor.may_steer,
        "is_open": _guard(request).is_open,
        "with_query": lambda **changes: _with_query(request, changes),
    }
    return _templates.TemplateResponse(request, template, {**here, **context}, status_code=status)


def _with_query(request: Request, changes: Mapping[str, object]) -> str:
    """This page's address with some of its query changed; an empty value takes a part away."""
    query = {**dict(request.query_params), **{key: str(value) for key, value in changes.items()}}
    return "?" + urlencode({key: value for key, value in query.items() if value})


def _guard(request: Request) -> Guard:
    guard: Guard = request.scope["guard"]
    return guard


def _local(address: str) -> str:
    """Only our own pages: never `//elsewhere` or `https:`."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_ours and "\\" not in address else "/hpo"


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
