"""From a template and its context to an answer: the templates' environment, and what every page shows.

Also the small drawings within pages, made here as SVG: no script, no request, and a label for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from importlib.util import find_spec
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Depends, Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from highnoon.shared.domain.errors import Problem
from highnoon.shared.domain.trial import MemoryTrace, Report
from highnoon.shared.views import formats
from highnoon.shared.views.formats import duration, number, size
from highnoon.shared.views.studies import fault_line
from highnoon.shared.views.trials import cause_of, ending_of
from highnoon.webui import assets
from highnoon.webui.authentication import Authentication
from highnoon.webui.sessions import Principal


def moment(when: datetime | float | None) -> Markup:
    """A time element: how long ago, which the page keeps up to date, and the exact moment on hover."""
    if when is None:
        return Markup(formats.NOTHING)  # noqa: S704 - a dash of ours
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


def sparkline(values: list[float], *, maximize: bool, width: int = 120, height: int = 24) -> Markup:
    """The best value so far as a small drawing, without a far first value flattening the rest."""
    best: list[float] = []
    for value in values:
        if math.isfinite(value):
            best.append(value if not best else (max if maximize else min)(best[-1], value))
    if len(best) < 2:
        return Markup("")
    step = max(1, len(best) // width)
    points = [*best[::step], best[-1]]
    low, high = min(points), max(points)
    across = (width - 2) / (len(points) - 1)
    path = " ".join(
        f"{1 + index * across:.1f},{1 + (height - 2) * _depth(value, low, high):.1f}"
        for index, value in enumerate(points)
    )
    label = f"best value so far: from {number(best[0])} to {number(best[-1])}"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>'
    ).format(width, height, width, height, label, path)


def report_line(reports: Sequence[Report], *, width: int = 560, height: int = 90) -> Markup:
    """What a trial reported over its steps; nothing below two finite reports."""
    finite = [report for report in reports if math.isfinite(report.value)]
    if len(finite) < 2:
        return Markup("")
    kept = [*finite[:: max(1, len(finite) // width)], finite[-1]]
    low, high = min(report.value for report in kept), max(report.value for report in kept)
    first, last = kept[0].step, kept[-1].step
    across = width / ((last - first) or 1)
    points = [((report.step - first) * across, 4 + (height - 8) * _depth(report.value, low, high)) for report in kept]
    return _line(points, width, height, f"reports from {number(kept[0].value)} to {number(kept[-1].value)}")


def _depth(value: float, low: float, high: float) -> float:
    """How far below the highest value, as a share; the range of two values may be beyond what a float can be."""
    return (high / 2 - value / 2) / ((high / 2 - low / 2) or 1.0)


def memory_line(trace: MemoryTrace | None, *, width: int = 560, height: int = 90) -> Markup:
    """The memory of an attempt over its time as a small drawing, with its limit as a line above."""
    if trace is None or len(trace.samples) < 2:
        return Markup("")
    first_s, last_s = trace.samples[0][0], trace.samples[-1][0]
    top = max(trace.limit_bytes or 0, trace.peak_bytes, *(used for _, used in trace.samples)) * 1.05 or 1.0
    across = width / ((last_s - first_s) or 1.0)
    points = [((at_s - first_s) * across, height * (1 - used / top)) for at_s, used in trace.samples]
    limit, bound = "", ""
    if trace.limit_bytes:
        limit = Markup('<line class="limit" x1="0" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
            width, y=height * (1 - trace.limit_bytes / top)
        )
        bound = f", limit {size(trace.limit_bytes)}"
    label = f"memory over {duration(last_s - first_s)}: peak {size(trace.peak_bytes)}{bound}"
    return _line(points, width, height, label, limit)


def _line(points: Sequence[tuple[float, float]], width: int, height: int, label: str, more: str = "") -> Markup:
    """As wide as its place: the drawing is stretched, its line is not."""
    return Markup(
        '<svg class="line" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}"/>{}</svg>'
    ).format(width, height, label, " ".join(f"{x:.1f},{y:.1f}" for x, y in points), more)


_FILTERS = (
    number, formats.param, formats.count, size, duration, formats.words, moment, segment, memory_line, report_line,
    fault_line,
)  # fmt: skip

_environment = Environment(
    loader=PackageLoader("highnoon.webui", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update({function.__name__: function for function in _FILTERS})
_environment.globals.update(has_parquet=find_spec("pyarrow") is not None)
_environment.globals.update(asset=assets.address, cause_of=cause_of, ending_of=ending_of)
_templates = Jinja2Templates(env=_environment)


def rendered(request: Request, template: str, context: Mapping[str, Any], *, status: int = 200) -> Response:
    """A page."""
    principal: Principal | None = getattr(request.state, "principal", None)
    common = {
        "principal": principal,
        "csrf": principal.csrf if principal else "",
        "may_steer": principal is not None and principal.may_steer,
        "is_open": authentication_of(request).authenticator.is_open,
        # Before anything of the page was read: what changes from then on may be missing in it.
        "rendered_at": f"{getattr(request.state, 'arrived_at', 0.0):.3f}",
        "with_query": lambda **changes: _with_query(request, changes),
    }
    return _templates.TemplateResponse(request, template, {**common, **context}, status_code=status)


def error_page(request: Request, status: int, detail: str, problems: Sequence[Problem] = ()) -> Response:
    """What went wrong, for a person, and the way on."""
    titles = {404: "Not found", 409: "Not now", 422: "That cannot work", 503: "The database is away"}
    title = titles.get(status, HTTPStatus(status).phrase)
    study = request.path_params.get("study") if status in (409, 422) else None
    context = {"status": status, "title": title, "detail": detail, "problems": problems, "study": study}
    return rendered(request, "error.html", context, status=status)


async def form_fields(request: Request) -> dict[str, str]:
    """The fields of a form that was sent."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


Sent = Annotated[dict[str, str], Depends(form_fields)]


def authentication_of(request: Request) -> Authentication:
    """The middleware that admitted this request."""
    authentication: Authentication = request.scope["authentication"]
    return authentication


def _with_query(request: Request, changes: Mapping[str, object]) -> str:
    """This page's address with some of its query changed; an empty value takes a part away."""
    query = {**dict(request.query_params), **{key: str(value) for key, value in changes.items()}}
    return "?" + urlencode({key: value for key, value in query.items() if value})
