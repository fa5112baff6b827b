"""The API under /api/hpo: everything that the pages show and do, for programs. Errors are problem+json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi import Path as PathParam
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.webui import exports
from highnoon.webui.charts import FIGURES
from highnoon.webui.desk import Desk, desk_of
from highnoon.webui.listing import MOST_PER_PAGE, Page, StudyWish, TrialWish, choose_studies, choose_trials
from highnoon.webui.objects import attempt_object, study_object
from highnoon.webui.packed import packed_response
from highnoon.webui.plain import dumps
from highnoon.webui.problems import MEDIA_TYPE, ProblemDetail, problem_response

router = APIRouter(
    prefix="/api/hpo",
    responses={
        code: {"model": ProblemDetail, "content": {MEDIA_TYPE: {}}, "description": what}
        for code, what in {
            401: "No credential, or a wrong one",
            404: "No such study or trial",
            409: "The study's state forbids it",
            422: "A mistake in the request",
            503: "The database is away",
        }.items()
    },
)

Here = Annotated[Desk, Depends(desk_of)]
PageNumber = Annotated[int, Query(ge=1, le=10_000_000, description="From 1.")]
PerPage = Annotated[int, Query(ge=1, le=MOST_PER_PAGE)]


class StudyPatch(BaseModel):
    """What to change: a state to go to, or trials to add, or both."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["running", "paused", "cancelled"] | None = None
    add_trials: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None


class WorkerPatch(BaseModel):
    """The state that a worker is to go to."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["draining", "active"]


class Point(BaseModel):
    """Parameters to try; what is left out is sampled."""

    model_config = ConfigDict(extra="forbid")

    params: dict[str, bool | int | float | str | None]


class Strict(Response):
    """JSON without nan and infinity."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content).encode()


@router.get("/studies", tags=["studies"])
def list_studies(
    desk: Here,
    q: Annotated[str, Query(description="Part of the name.")] = "",
    state: str = "",
    sort: Annotated[str, Query(description="name, state, trials, best, running, age; with - descending.")] = "",
    page: PageNumber = 1,
    per_page: PerPage = 50,
) -> Response:
    """All studies, newest first."""
    wish = StudyWish(text=q, state=state, sort=sort, page=page, per_page=per_page)
    return Strict(_page_object(choose_studies(desk.library.studies(), wish), "studies", study_object))


@router.post("/studies", tags=["studies"], status_code=201)
def create_study(
    desk: Here, written: Annotated[dict[str, Any], Body(description="The keys of a study file.")]
) -> Response:
    """Submit a study, or join the one of its name."""
    submission = desk.steering.create(written)
    study = desk.library.study(submission.spec.name)
    answer = {**study_object(study), "added": submission.added, "joined": submission.joined, "note": submission.note}
    return Strict(answer, status_code=200 if submission.joined else 201)


@router.get("/studies/{study}", tags=["studies"])
def get_study(desk: Here, study: str) -> Response:
    """One study, by its name or id, with its specification."""
    found = desk.library.study(study)
    return Strict({**study_object(found), "spec": dict(found.spec)})


@router.patch("/studies/{study}", tags=["studies"])
def change_study(desk: Here, study: str, change: StudyPatch) -> Response:
    """Pause, resume or cancel it, or add trials."""
    found = desk.library.study(study, fresh=True)
    if change.state is None and change.add_trials is None:
        raise InvalidInput("request", [Problem(key="state", message="or add_trials is needed")])
    if change.state is not None and change.state != found.state:
        acts = {"running": desk.steering.resume, "paused": desk.steering.pause, "cancelled": desk.steering.cancel}
        acts[change.state](found)
    if change.add_trials is not None:
        desk.steering.add_trials(found, change.add_trials)
    return Strict(study_object(desk.library.study(found.name)))


@router.delete("/studies/{study}", tags=["studies"], status_code=204)
def delete_study(desk: Here, study: str) -> Response:
    """Delete a study that is over, with all its trials."""
    desk.steering.delete(desk.library.study(study, fresh=True))
    return Response(status_code=204)


@router.get("/studies/{study}/trials", tags=["trials"])
def list_trials(
    desk: Here,
    study: str,
    state: Annotated[str, Query(description="WAITING, RUNNING, COMPLETE, PRUNED or FAIL.")] = "",
    cause: Annotated[str, Query(description="A cause or an ending, such as exception or timed_out.")] = "",
    sort: Annotated[str, Query(description="number, value, state, cause, duration, started, params.NAME.")] = "-number",
    page: PageNumber = 1,
    per_page: PerPage = 50,
) -> Response:
    """Trials, newest first."""
    found = desk.library.study(study)
    snapshot = desk.library.snapshot(found.name)
    wish = TrialWish(state=state, cause=cause, sort=sort, page=page, per_page=per_page)
    chosen = choose_trials(snapshot.trials, wish, list(snapshot.space))
    spans = desk.spans(found, [trial.number for trial in chosen.items])
    return Strict(_page_object(chosen, "trials", lambda trial: exports.trial_object(trial, spans.get(trial.number))))


@router.post("/studies/{study}/trials", tags=["trials"], status_code=202)
def enqueue_trial(desk: Here, study: str, point: Point) -> Response:
    """Add one trial with these parameters."""
    found = desk.library.study(study, fresh=True)
    desk.steering.enqueue(found, point.params)
    return Strict(study_object(desk.library.study(found.name)), status_code=202)


@router.get("/studies/{study}/trials/{number}", tags=["trials"])
def get_trial(desk: Here, study: str, number: int) -> Response:
    """One trial with its attempts."""
    found = desk.library.study(study)
    trial = desk.trial(found, number)
    attempts = [attempt_object(attempt) for attempt in desk.attempts(found, trial)]
    return Strict({**exports.trial_object(trial), "message": desk.message_of(trial), "attempts": attempts})


@router.post("/studies/{study}/trials/{number}/retry", tags=["trials"], status_code=202)
def retry_trial(desk: Here, study: str, number: int) -> Response:
    """Give a failed trial another go, with the same parameters."""
    found = desk.library.study(study, fresh=True)
    desk.steering.retry(found, desk.trial(found, number).number)
    return Strict(study_object(desk.library.study(found.name)), status_code=202)


@router.get("/studies/{study}/trials/{number}/log", tags=["trials"], response_class=Response)
def get_log(desk: Here, study: str, number: int) -> Response:
    """The end of what the trial printed, as text."""
    found = desk.library.study(study)
    attempt = desk.own_attempt(found, desk.trial(found, number))
    return Response((attempt.log_tail or "") if attempt else "", media_type="text/plain; charset=utf-8")


@router.get("/studies/{study}/best", tags=["results"])
def get_best(desk: Here, study: str) -> Response:
    """The best completed trial."""
    return Strict(exports.trial_object(desk.best(desk.library.study(study))))


@router.get("/studies/{study}/importance", tags=["results"])
def get_importance(desk: Here, study: str) -> Response:
    """How much each parameter mattered, as shares of 1; empty below two completed trials."""
    return Strict({"importance": desk.library.importance(desk.library.study(study).name)})


@router.get("/studies/{study}/figures/{kind}", tags=["results"])
def get_figure(
    request: Request,
    desk: Here,
    study: str,
    kind: Annotated[str, PathParam(description=", ".join(FIGURES))],
    x: str = "",
    y: str = "",
    raw: bool = False,
) -> Response:
    """A figure as plotly's JSON; colours are names with a $."""
    packed = desk.figures.figure(desk.library.study(study), kind, x=x, y=y, raw=raw)
    return packed_response(request, packed, media_type="application/json")


@router.get("/studies/{study}/export/best", tags=["results"], response_class=Response)
def export_best(desk: Here, study: str, format: Literal["json", "yaml", "toml", "python", "env"] = "json") -> Response:
    """The best configuration as a file."""
    found = desk.library.study(study)
    kind = exports.BEST[format]
    text = kind.write(found.name, desk.best(found))
    return Response(text, media_type=kind.media_type, headers=_as_file(kind.name))


@router.get("/studies/{study}/export/trials", tags=["results"], response_class=Response)
def export_trials(desk: Here, study: str, format: Literal["csv", "jsonl", "parquet"] = "csv") -> Response:
    """All trials as a file. Parquet needs pyarrow where the dashboard runs."""
    found = desk.library.study(study)
    headers = _as_file(f"trials.{format}")
    if format == "parquet":
        body = desk.sheets.parquet(found)
        return Response(body, media_type="application/vnd.apache.parquet", headers=headers)
    if format == "csv":
        return StreamingResponse(desk.sheets.csv(found), media_type="text/csv; charset=utf-8", headers=headers)
    return StreamingResponse(desk.sheets.jsonl(found), media_type="application/jsonl", headers=headers)


@router.get("/workers", tags=["cluster"])
def list_workers(desk: Here) -> Response:
    """Workers that are there, what they run, and what waits."""
    return Strict(desk.cluster().to_json())


@router.patch("/workers/{worker}", tags=["cluster"])
def change_worker(desk: Here, worker: str, change: WorkerPatch) -> Response:
    """Drain a worker (it takes nothing new, and ends), or make one active again that is in quarantine."""
    acts = {"draining": desk.fleet.drain, "active": desk.fleet.reinstate}
    acts[change.state](worker)
    return Strict(desk.cluster().to_json())


@router.get("/events", tags=["cluster"], response_class=Response)
async def events(request: Request) -> Response:
    """Server-sent events; a change names the studies that changed."""
    pulses = desk_of(request).pulses
    if pulses.is_full:
        return problem_response(503, "Too many pages listen already.", headers={"retry-after": "30"})
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(pulses.stream(), media_type="text/event-stream", headers=headers)


def _page_object(page: Page[Any], name: str, to_object: Any) -> dict[str, Any]:
    return {
        name: [to_object(item) for item in page.items],
        "page": page.number,
        "pages": page.pages,
        "per_page": page.per_page,
        "total": page.total,
    }


def _as_file(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
