"""The dashboard put together: authentication, API, pages, files, and the answer to every error. Never a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from threading import Event
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from highnoon.shared.domain.errors import HighNoonError, InvalidInput, Problem, ServiceUnavailable, nearest
from highnoon.shared.domain.validation import problem_of
from highnoon.shared.views.formats import plural
from highnoon.webui import api, assets, login_pages, pages, study_comparison, study_pages, trial_pages
from highnoon.webui.app_state import AppState
from highnoon.webui.authentication import Authentication, Refused
from highnoon.webui.event_stream import EventStream
from highnoon.webui.rendering import error_page
from highnoon.webui.responses import problem_response, status_of
from highnoon.webui.sessions import Authenticator
from highnoon.webui.settings import WebSettings
from highnoon.webui.study_repository import StudyRepository

_log = logging.getLogger("highnoon.webui")


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What a server runs, and the streams that it ends before it waits for open connections."""

    asgi: ASGIApp
    event_stream: EventStream


def create(settings: WebSettings, *, database: Callable[[], str], port: int) -> Application:
    """The whole dashboard as one ASGI application. Connects to nothing before it is started."""
    app = FastAPI(
        title="HighNoon HPO",
        version=version("highnoon-hpo"),
        description="Studies, trials and workers. Changes need a token, or a page of the dashboard.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.app_state = state = AppState(settings, database)
    # The path of a study may have slashes: what follows it is looked for first.
    for routes in (api, pages, study_comparison, login_pages, trial_pages, study_pages, assets):
        app.include_router(routes.router)
    app.add_route("/health", _health, include_in_schema=False)
    for kind in (HighNoonError, Refused, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)
    authenticator = Authenticator(settings.tokens)
    asgi = Authentication(app, authenticator=authenticator, hosts=settings.hosts, port=port)
    return Application(asgi=asgi, event_stream=state.event_stream)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: AppState = app.state.app_state
    is_over = Event()
    warming = asyncio.create_task(run_in_threadpool(_warm, state.repository, is_over))
    try:
        yield
    finally:
        is_over.set()
        await state.event_stream.stop()
        warming.cancel()
        state.repository.close()


def _warm(repository: StudyRepository, is_over: Event) -> None:
    try:
        repository.warm()
    except HighNoonError:
        return  # the first request gets the same error as its answer
    except Exception:
        if not is_over.is_set():  # modules that are imported while the interpreter ends raise all kinds of errors
            _log.exception("action=warm_failed")


async def _health(request: Request) -> Response:
    """Answers while the process is up; nothing about the studies is in it."""
    return JSONResponse({"status": "ok"})


async def _answer(request: Request, error: Exception) -> Response:
    """The answer to every error: a page for a person, problem+json for a program."""
    problems: Sequence[Problem] = ()
    path = request.scope["path"]
    match error:
        case Refused():
            return error.response
        case HighNoonError():
            problems = error.problems if isinstance(error, InvalidInput) else ()
            status, detail = status_of(error), plural(len(problems), "mistake") if problems else str(error)
            if isinstance(error, ServiceUnavailable):
                _log.warning("action=outage error=%s", error)
        case HTTPException():
            details = {404: "There is no such page.", 405: "This address does not take this method."}
            status, detail = error.status_code, details.get(error.status_code, str(error.detail))
        case RequestValidationError():
            problems = [_problem(found, request) for found in error.errors()]
            status, detail = 422, plural(len(problems), "mistake")
        case _:
            _log.error("action=request_failed path=%s", path, exc_info=error)
            status, detail = 500, "This is a bug of the dashboard. Its log has the details."
    if path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        headers = {"retry-after": "5"} if status == 503 else None
        return problem_response(status, detail, problems, headers, getattr(request.state, "done", ()))
    return error_page(request, status, detail, problems)


def _problem(found: Mapping[str, Any], request: Request) -> Problem:
    """What FastAPI has found wrong with a request."""
    if found["type"] == "json_invalid":
        return Problem(key="body", message=f"is not JSON: {found['ctx']['error']} at character {found['loc'][-1]}")
    key = tuple(map(str, found["loc"][1:])) or ("body",)
    hint = ""
    if found["type"] == "extra_forbidden":
        hint = nearest(key[-1], request.scope["route"].body_field.field_info.annotation.model_fields)
    return problem_of(found, key, hint)
