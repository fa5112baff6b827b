"""From a template and its context to an answer: the templates' environment, and what every page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from highnoon.shared.domain.errors import Problem
from highnoon.shared.views import formats
from highnoon.shared.views.trials import cause_of, ending_of
from highnoon.webui import assets
from highnoon.webui.authentication import Authentication
from highnoon.webui.sessions import Principal
from highnoon.webui.sparklines import SPARKLINES


def moment(when: datetime | float | None) -> Markup:
    """A time element: how long ago, which the page keeps up to date, and the exact moment on hover."""
    if when is None:
        return Markup(formats.NOTHING)
    at = when if isinstance(when, datetime) else datetime.fromtimestamp(when, timezone.utc)
    exact = at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    passed_s = (datetime.now(timezone.utc) - at).total_seconds()
    shown = "just now" if passed_s < 5 else f"{_coarse(passed_s)} ago"
    return Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(at.isoformat(), exact, shown)


def segment(name: str) -> str:
    """A name as one part of an address."""
    return quote(name, safe="")


def _coarse(seconds: float) -> str:
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{int(seconds // size_s)} {unit}"
    return f"{int(seconds)} s"


_FORMATS = (formats.number, formats.param, formats.count, formats.size, formats.duration, moment, segment)

_environment = Environment(
    loader=PackageLoader("highnoon.webui", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update({**{function.__name__: function for function in _FORMATS}, **SPARKLINES})
_environment.globals.update(has_parquet=find_spec("pyarrow") is not None)
_environment.globals.update(asset=assets.address, cause_of=cause_of, ending_of=ending_of)
_templates = Jinja2Templates(env=_environment)


def shown(request: Request, template: str, context: Mapping[str, Any], *, status: int = 200) -> Response:
    """A page."""
    principal: Principal | None = getattr(request.state, "principal", None)
    common = {
        "principal": principal,
        "csrf": principal.csrf if principal else "",
        "may_steer": principal is not None and principal.may_steer,
        "is_open": authentication_of(request).is_open,
        "with_query": lambda **changes: _with_query(request, changes),
    }
    return _templates.TemplateResponse(request, template, {**common, **context}, status_code=status)


def error_page(request: Request, status: int, detail: str, problems: Sequence[Problem] = ()) -> Response:
    """What went wrong, for a person, and the way on."""
    titles = {404: "Not found", 409: "Not now", 422: "That cannot work", 503: "The database is away"}
    title = titles.get(status, HTTPStatus(status).phrase)
    context = {"status": status, "title": title, "detail": detail, "problems": problems}
    return shown(request, "error.html", context, status=status)


async def form_fields(request: Request) -> dict[str, str]:
    """The fields of a form that was sent."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


def authentication_of(request: Request) -> Authentication:
    """The middleware that admitted this request."""
    authentication: Authentication = request.scope["authentication"]
    return authentication


def _with_query(request: Request, changes: Mapping[str, object]) -> str:
    """This page's address with some of its query changed; an empty value takes a part away."""
    query = {**dict(request.query_params), **{key: str(value) for key, value in changes.items()}}
    return "?" + urlencode({key: value for key, value in query.items() if value})
