"""From a template and what it shows to an answer: the templates' environment, and what every page knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from highnoon.shared.domain.errors import Problem
from highnoon.webui import assets
from highnoon.webui.drawings import DRAWINGS
from highnoon.webui.formats import FILTERS
from highnoon.webui.guard import Guard
from highnoon.webui.sessions import Visitor
from highnoon.webui.snapshot import cause_of, ending_of

_environment = Environment(
    loader=PackageLoader("highnoon.webui", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update({**FILTERS, **DRAWINGS})
_environment.globals.update(has_parquet=find_spec("pyarrow") is not None)
_environment.globals.update(asset=assets.address, cause_of=cause_of, ending_of=ending_of)
_templates = Jinja2Templates(env=_environment)


def shown(request: Request, template: str, context: Mapping[str, Any], *, status: int = 200) -> Response:
    """A page."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    here = {
        "visitor": visitor,
        "csrf": visitor.csrf if visitor else "",
        "may_steer": visitor is not None and visitor.may_steer,
        "is_open": guard_of(request).is_open,
        "with_query": lambda **changes: _with_query(request, changes),
    }
    return _templates.TemplateResponse(request, template, {**here, **context}, status_code=status)


def _with_query(request: Request, changes: Mapping[str, object]) -> str:
    """This page's address with some of its query changed; an empty value takes a part away."""
    query = {**dict(request.query_params), **{key: str(value) for key, value in changes.items()}}
    return "?" + urlencode({key: value for key, value in query.items() if value})


def error_page(request: Request, status: int, detail: str, problems: Sequence[Problem] = ()) -> Response:
    """What went wrong, for a person, and the way on."""
    title = {404: "Not found", 409: "Not now", 422: "That cannot work", 503: "The database is away"}
    context = {
        "status": status,
        "title": title.get(status, HTTPStatus(status).phrase),
        "detail": detail,
        "problems": problems,
    }
    return shown(request, "error.html", context, status=status)


async def form_fields(request: Request) -> dict[str, str]:
    """What a form sent."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


def guard_of(request: Request) -> Guard:
    """The door that let this request in."""
    guard: Guard = request.scope["guard"]
    return guard
