"""Small drawings within pages, made here as SVG: no script, no request, and a label for screen readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from highnoon.shared.domain.trial import MemoryTrace, Report
from highnoon.shared.views.formats import duration, number, size


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
    spread = (high - low) or 1.0
    across = (width - 2) / (len(points) - 1)
    path = " ".join(
        f"{1 + index * across:.1f},{1 + (height - 2) * (high - value) / spread:.1f}"
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
    across, down = width / ((last - first) or 1), (height - 8) / ((high - low) or 1.0)
    points = [((report.step - first) * across, 4 + (high - report.value) * down) for report in kept]
    return _line(points, width, height, f"reports from {number(kept[0].value)} to {number(kept[-1].value)}")


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


SPARKLINES: Mapping[str, Callable[..., Markup]] = {"memory_line": memory_line, "report_line": report_line}
"""Their names in templates."""
