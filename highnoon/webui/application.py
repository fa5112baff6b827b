"""The dashboard put together: authentication, API, pages, files, and the answer to every error. Never a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from highnoon.shared.domain.errors import HighNoonError, Problem, ServiceUnavailable
from highnoon.shared.views.formats import plural
from highnoon.webui import api, assets, pages
from highnoon.webui.app_state import AppState
from highnoon.webui.authentication import Authentication, Refused
from highnoon.webui.event_stream import EventStream
from highnoon.webui.rendering import error_page
from highnoon.webui.responses import problem_response, problems_of, status_of
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
    for routes in (api, pages, assets):
        app.include_router(routes.router)
    app.add_route("/health", _health, include_in_schema=False)
    app.add_exception_handler(HighNoonError, _answer_error)
    app.add_exception_handler(Refused, _answer_refused)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_bug)
    authenticator = Authenticator(settings.tokens)
    asgi = Authentication(app, authenticator=authenticator, hosts=settings.hosts, port=port)
    return Application(asgi=asgi, event_stream=state.event_stream)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: AppState = app.state.app_state
    warming = asyncio.create_task(run_in_threadpool(_warm, state.repository))
    try:
        yield
    finally:
        await state.event_stream.stop()
        warming.cancel()
        state.repository.close()


def _warm(repository: StudyRepository) -> None:
    try:
        repository.warm()
    except HighNoonError:
        return  # the first request gets the same error as its answer
    except Exception:
        _log.exception("action=warm_failed")


async def _health(request: Request) -> Response:
    """Answers while the process is up; nothing about the studies is in it."""
    return JSONResponse({"status": "ok"})


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HighNoonError)
    found = problems_of(error)
    if isinstance(error, ServiceUnavailable):
        _log.warning("action=outage error=%s", error)
    return _answer(request, status_of(error), plural(len(found), "mistake") if found else str(error), found)


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {404: "There is no such page.", 405: "This address does not take this method."}
    return _answer(request, error.status_code, details.get(error.status_code, str(error.detail)))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        Problem(key=".".join(map(str, detail["loc"][1:])) or "body", message=detail["msg"], value=detail.get("input"))
        for detail in error.errors()
    ]
    return _answer(request, 422, "The request has mistakes.", found)


async def _answer_bug(request: Request, error: Exception) -> Response:
    _log.error("action=request_failed path=%s", request.url.path, exc_info=error)
    return _answer(request, 500, "This is a bug of the dashboard. Its log has the details.")


def _answer(request: Request, status: int, detail: str, found: Sequence[Problem] = ()) -> Response:
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        headers = {"retry-after": "5"} if status == 503 else None
        return problem_response(status, detail, found, headers)
    return error_page(request, status, detail, found)
