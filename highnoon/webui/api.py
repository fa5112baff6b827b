"""The API under /api/hpo: what the pages show and do, for programs. Errors are problem+json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi import Path as PathParam
from fastapi.responses import StreamingResponse

from highnoon.shared.domain.errors import InvalidInput, UnknownStudy
from highnoon.shared.domain.note import note_problems
from highnoon.shared.domain.states import MESSAGE
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store import steering
from highnoon.shared.views.best_config import BEST, FRONT
from highnoon.shared.views.charts import FIGURES, metric_curves
from highnoon.shared.views.studies import study_object
from highnoon.shared.views.trials import artifact_object, attempt_object, history_object, note_object, trial_object
from highnoon.webui.api_bodies import LongerTraining, NotePatch, Point, StudyPatch, WorkerPatch
from highnoon.webui.app_state import FreshStudy, KnownStudy, KnownTrial, State, own_attempt
from highnoon.webui.listing import Page, StudyQuery, TrialQuery, choose_studies, choose_trials
from highnoon.webui.responses import PROBLEM_TYPE, JsonResponse, ProblemDetail, compressed_response, problem_response
from highnoon.webui.results import csv_file, json_lines_file, parquet_file

# The path of a study may have slashes: what follows it is looked for first.
router = APIRouter(
    prefix="/api/hpo",
    responses={
        code: {"model": ProblemDetail, "content": {PROBLEM_TYPE: {}}, "description": what}
        for code, what in {
            401: "No credential, or a wrong one",
            404: "No such study or trial",
            409: "The study's state forbids it",
            422: "A mistake in the request",
            503: "The database is away",
        }.items()
    },
)


@router.get("/studies", tags=["studies"])
@router.get("/studies/", include_in_schema=False)
def list_studies(app: State, query: Annotated[StudyQuery, Query()]) -> Response:
    """All studies, newest first."""
    return JsonResponse(_page_object(choose_studies(app.repository.studies(), query), "studies", study_object))


@router.post("/studies", tags=["studies"], status_code=201)
@router.post("/studies/", status_code=201, include_in_schema=False)
def create_study(
    app: State, written: Annotated[dict[str, Any], Body(description="The keys of a study file.")]
) -> Response:
    """Submit a study, or join the one of its name."""
    submission = app.actions.create(written)
    study = app.repository.study(submission.spec.name)
    answer = {**study_object(study), "added": submission.added, "joined": submission.joined, "note": submission.note}
    return JsonResponse(answer, status_code=200 if submission.joined else 201)


@router.get("/studies/{study:path}/export/best", tags=["results"], response_class=Response)
def export_best(
    app: State, study: KnownStudy, format: Literal["json", "yaml", "toml", "python", "env"] = "json"
) -> Response:
    """The best configuration as a file; of several objectives all of the front, as json or python."""
    kind, front = BEST[format], app.front(study)
    if front:
        if format not in FRONT:
            hint = f"Valid: {', '.join(FRONT)}."
            raise InvalidInput.of("request", "format", "is for a study with one objective", value=format, hint=hint)
        text = FRONT[format](study.name, front, app.repository.trials(study.name).objectives)
        return Response(text, media_type=kind.media_type, headers=_as_file(kind.name))
    return Response(kind.write(study.name, app.best(study)), media_type=kind.media_type, headers=_as_file(kind.name))


@router.get("/studies/{study:path}/export/trials", tags=["results"], response_class=Response)
def export_trials(app: State, study: KnownStudy, format: Literal["csv", "jsonl", "parquet"] = "csv") -> Response:
    """All trials as a file. Parquet needs pyarrow where the dashboard runs."""
    headers = _as_file(f"trials.{format}")
    if format == "parquet":
        body = parquet_file(app.repository, study, app.notes(study))
        return Response(body, media_type="application/vnd.apache.parquet", headers=headers)
    if format == "csv":
        lines = csv_file(app.repository, study, app.notes(study))
        return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)
    return StreamingResponse(
        json_lines_file(app.repository, study, app.notes(study)), media_type="application/jsonl", headers=headers
    )


@router.get("/studies/{study:path}/trials", tags=["trials"])
def list_trials(app: State, study: KnownStudy, query: Annotated[TrialQuery, Query()]) -> Response:
    """Trials, newest first."""
    found = app.repository.trials(study.name)
    chosen = choose_trials(found.trials, query, found.space, found.objectives)
    spans = app.spans(study, [trial.number for trial in chosen.items])
    notes = app.notes(study)

    def to_object(trial: Trial) -> dict[str, Any]:
        return trial_object(trial, spans.get(trial.number), notes.get(trial.number))

    return JsonResponse(_page_object(chosen, "trials", to_object))


@router.post("/studies/{study:path}/trials", tags=["trials"], status_code=202)
def enqueue_trial(app: State, study: FreshStudy, point: Point) -> Response:
    """Add one trial with these parameters."""
    app.actions.steer(study, steering.enqueue, point.params)
    return JsonResponse(study_object(app.repository.study(study.name)), status_code=202)


@router.get("/studies/{study:path}/trials/{number}", tags=["trials"])
def get_trial(app: State, study: KnownStudy, trial: KnownTrial) -> Response:
    """One trial with its attempts, and the curves of what it logged."""
    attempts = app.attempts(study, trial)
    more = {
        "message": str(trial.attrs.get(MESSAGE) or ""),
        "metric_history": history_object(app.metric_history(study, trial)),
        "attempts": [attempt_object(one) for one in attempts],
    }
    note = app.notes(study).get(trial.number)
    return JsonResponse({**trial_object(trial, own_attempt(trial, attempts), note), **more})


@router.patch("/studies/{study:path}/trials/{number}", tags=["trials"])
def annotate_trial(app: State, study: FreshStudy, number: int, change: NotePatch) -> Response:
    """Write note and tags beside a trial."""
    trial = app.trial(study, number)
    app.actions.annotate(study, trial.number, text=change.note, tags=change.tags)
    return JsonResponse(note_object(app.notes(study).get(trial.number)))


@router.post("/studies/{study:path}/trials/{number}/retry", tags=["trials"], status_code=202)
def retry_trial(app: State, study: FreshStudy, number: int) -> Response:
    """Run a failed trial again, with the same parameters."""
    app.actions.retry(study, app.trial(study, number).number)
    return JsonResponse(study_object(app.repository.study(study.name)), status_code=202)


@router.post("/studies/{study:path}/trials/{number}/extend", tags=["trials"], status_code=202)
def extend_trial(app: State, study: FreshStudy, number: int, longer: LongerTraining) -> Response:
    """Train a trial that has ended longer: one more trial, from its stored checkpoint, with the same parameters."""
    app.actions.steer(study, steering.extend_trial, app.trial(study, number).number, longer.settings)
    return JsonResponse(study_object(app.repository.study(study.name)), status_code=202)


@router.get("/studies/{study:path}/trials/{number}/log", tags=["trials"], response_class=Response)
def get_log(app: State, study: KnownStudy, trial: KnownTrial) -> Response:
    """The end of what the trial printed, as text."""
    attempt = own_attempt(trial, app.attempts(study, trial))
    return Response((attempt.log_tail or "") if attempt else "", media_type="text/plain; charset=utf-8")


@router.get("/studies/{study:path}/trials/{number}/figures/metrics", tags=["trials"])
def get_metric_figure(app: State, study: KnownStudy, trial: KnownTrial) -> Response:
    """The curves of what the trial logged, as plotly's JSON; colours are names with a $."""
    return JsonResponse(metric_curves(app.metric_history(study, trial)).to_json())


@router.get("/studies/{study:path}/trials/{number}/artifacts", tags=["trials"])
def list_artifacts(app: State, study: KnownStudy, number: int) -> Response:
    """Files that the trial has saved."""
    found = app.repository.access().store.artifacts(study.name, app.trial(study, number).number)
    return JsonResponse({"artifacts": [artifact_object(one) for one in found.get(number, ())]})


@router.get("/studies/{study:path}/trials/{number}/artifacts/{artifact}", tags=["trials"], response_class=Response)
def download_artifact(app: State, study: KnownStudy, number: int, artifact: str) -> Response:
    """One of these files, by its id."""
    found = app.repository.access().store.artifacts(study.name, app.trial(study, number).number).get(number, ())
    wanted = next((one for one in found if one.id == artifact), None)
    if wanted is None:
        raise UnknownStudy(f"Trial {number} of study {study.name!r} has no artifact {artifact!r}.")
    return app.downloads.response(wanted)


@router.get("/studies/{study:path}/best", tags=["results"])
def get_best(app: State, study: KnownStudy) -> Response:
    """The best completed trial; with several objectives every trial that none beats in all of them."""
    front = app.front(study)
    return JsonResponse({"front": list(map(trial_object, front))} if front else trial_object(app.best(study)))


@router.get("/studies/{study:path}/figures/{kind}", tags=["results"])
def get_figure(
    request: Request,
    app: State,
    study: KnownStudy,
    kind: Annotated[str, PathParam(description=", ".join(FIGURES))],
    x: str = "",
    y: str = "",
    raw: bool = False,
    whole: Annotated[bool, Query(description="All parameters, not only the ten that matter most.")] = False,
    objective: Annotated[int, Query(ge=0, description="Of several objectives the one to draw, from 0.")] = 0,
) -> Response:
    """A figure as plotly's JSON; colours are names with a $."""
    compressed = app.figures.figure(study, kind, x=x, y=y, raw=raw, whole=whole, objective=objective)
    return compressed_response(request, compressed, media_type="application/json")


@router.get("/studies/{study:path}/importance", tags=["results"])
def get_importance(app: State, study: KnownStudy) -> Response:
    """How much each parameter mattered, as shares of 1; empty below two completed trials."""
    return JsonResponse({"importance": app.repository.importance(study.name)})


@router.get("/studies/{study:path}", tags=["studies"])
def get_study(app: State, study: KnownStudy) -> Response:
    """One study, by its name or id, with its specification."""
    return JsonResponse({**study_object(study), **note_object(app.notes(study).get(None)), "spec": dict(study.spec)})


@router.patch("/studies/{study:path}", tags=["studies"])
def change_study(request: Request, app: State, study: FreshStudy, change: StudyPatch) -> Response:
    """Pause, resume or cancel it, add trials, change its share of the slots, or write note and tags.

    Several changes are made one after the other, if no value is wrong: share, note and tags, state, trials. The first
    that fails ends the request, and its error lists in `done` what was changed before.
    """
    if not change.model_dump(exclude_none=True):
        raise InvalidInput.of("request", "state", "or add_trials, priority, max_running, note, tags is needed")
    _, wrong = steering.share_of(study.spec, priority=change.priority, max_running=change.max_running)
    if wrong := [*wrong, *note_problems(change.note, change.tags or ())]:
        raise InvalidInput("request", wrong)
    request.state.done = done = []
    if change.priority is not None or change.max_running is not None:
        app.actions.steer(study, steering.set_share, priority=change.priority, max_running=change.max_running)
        done += [key for key in ("priority", "max_running") if getattr(change, key) is not None]
    if change.note is not None or change.tags is not None:
        app.actions.annotate(study, None, text=change.note, tags=change.tags)
        done += [key for key in ("note", "tags") if getattr(change, key) is not None]
    if change.state is not None and change.state != study.state:
        acts = {"running": steering.resume, "paused": steering.pause, "cancelled": steering.cancel}
        app.actions.steer(study, acts[change.state])
        done.append("state")
    if change.add_trials is not None:
        app.actions.steer(study, steering.add_trials, change.add_trials)
    return JsonResponse(study_object(app.repository.study(study.name)))


@router.delete("/studies/{study:path}", tags=["studies"], status_code=204)
def delete_study(app: State, study: FreshStudy) -> Response:
    """Delete a study that is over, with all its trials."""
    app.actions.delete(study)
    return Response(status_code=204)


@router.get("/workers", tags=["cluster"])
def list_workers(app: State) -> Response:
    """Workers that are there, what they run, and what waits."""
    return JsonResponse(app.cluster().to_json())


@router.patch("/workers/{worker}", tags=["cluster"])
def change_worker(app: State, worker: str, change: WorkerPatch) -> Response:
    """Drain a worker (it takes nothing new, and ends), or make one active again that is in quarantine."""
    acts = {"draining": app.worker_actions.drain, "active": app.worker_actions.reinstate}
    acts[change.state](worker)
    return JsonResponse(app.cluster().to_json())


@router.get("/events", tags=["cluster"], response_class=Response)
async def events(app: State) -> Response:
    """Server-sent events; a change names the studies that changed."""
    stream = app.event_stream
    if stream.is_full:
        return problem_response(503, "Too many pages are connected already.", headers={"retry-after": "30"})
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream.stream(), media_type="text/event-stream", headers=headers)


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
