"""The dashboard put together: door, API, pages, files, and what every error becomes. Never a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
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
from highnoon.webui import api, assets, entrance, new_study, pages, problems
from highnoon.webui.allowed import AllowList
from highnoon.webui.desk import Desk
from highnoon.webui.events import Pulses
from highnoon.webui.figures import FigureCache
from highnoon.webui.fleet import FleetSteering
from highnoon.webui.guard import Guard, Refused
from highnoon.webui.library import Library
from highnoon.webui.rendering import error_page
from highnoon.webui.sessions import Doorman
from highnoon.webui.settings import WebSettings
from highnoon.webui.sheets import Sheets
from highnoon.webui.steering import Steering

_log = logging.getLogger("highnoon.webui")


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What a server runs, and what it ends before it waits for open connections."""

    asgi: ASGIApp
    pulses: Pulses


def create(settings: WebSettings, *, database: Callable[[], str], port: int) -> Application:
    """The whole dashboard as one ASGI application. Connects to nothing before it is started."""
    library = Library(database)
    allowed = AllowList(patterns=settings.objectives, folders_too=settings.database_url is None or _is_local(database))
    desk = Desk(
        settings=settings,
        library=library,
        steering=Steering(library=library, allowed=allowed),
        fleet=FleetSteering(library=library, home=settings.home, silent_s=settings.silent_s),
        figures=FigureCache(library),
        sheets=Sheets(library),
        pulses=Pulses(library),
    )
    app = FastAPI(
        title="HighNoon HPO",
        version=version("highnoon-hpo"),
        description="Studies, trials and workers. Changes need a token, or a page of the dashboard.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.desk = desk
    for routes in (api, new_study, pages, entrance, assets):
        app.include_router(routes.router)
    app.add_route("/health", _health, include_in_schema=False)
    app.add_exception_handler(HighNoonError, _explain)
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(HTTPException, _explain_http)
    app.add_exception_handler(RequestValidationError, _explain_request)
    app.add_exception_handler(Exception, _confess)
    guard = Guard(app, doorman=Doorman(settings.tokens), hosts=settings.hosts, port=port)
    return Application(asgi=guard, pulses=desk.pulses)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    desk: Desk = app.state.desk
    warming = asyncio.create_task(run_in_threadpool(_warm, desk.library))
    try:
        yield
    finally:
        await desk.pulses.stop()
        warming.cancel()
        desk.library.close()


def _warm(library: Library) -> None:
    try:
        library.warm()
    except HighNoonError:
        return  # the first visitor hears of it
    except Exception:
        _log.exception("action=warm_failed")


async def _health(request: Request) -> Response:
    """Says that the process answers, and nothing about what it serves."""
    return JSONResponse({"status": "ok"})


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HighNoonError)
    status = problems.status_of(error)
    if isinstance(error, ServiceUnavailable):
        _log.warning("action=outage error=%s", error)
    return _told(request, status, _detail(error), problems.problems_of(error))


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _explain_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "There is no such page.", 405: "That is not done this way."}
    return _told(request, error.status_code, words.get(error.status_code, str(error.detail)))


async def _explain_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        Problem(key=".".join(map(str, detail["loc"][1:])) or "body", message=detail["msg"], value=detail.get("input"))
        for detail in error.errors()
    ]
    return _told(request, 422, "The request has mistakes.", found)


async def _confess(request: Request, error: Exception) -> Response:
    _log.error("action=request_failed path=%s", request.url.path, exc_info=error)
    return _told(request, 500, "Something is wrong in the dashboard itself. Its log says more.")


def _told(request: Request, status: int, detail: str, found: object = ()) -> Response:
    mistakes = list(found) if isinstance(found, list | tuple) else []
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        headers = {"retry-after": "5"} if status == 503 else None
        return problems.problem_response(status, detail, mistakes, headers)
    return error_page(request, status, detail, mistakes)


def _detail(error: HighNoonError) -> str:
    found = problems.problems_of(error)
    return str(error) if not found else f"{len(found)} mistake{'s' if len(found) > 1 else ''}"


def _is_local(database: Callable[[], str]) -> bool:
    with suppress(HighNoonError):
        return "@127.0.0.1:" in database() or database().startswith("sqlite")
    return False
