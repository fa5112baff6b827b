"""Small drawings: they need two points, survive every number, and say what they show."""

from __future__ import annotations

import re

from highnoon.shared.domain.trial import MemoryTrace, Report
from highnoon.webui.rendering import memory_line, report_line, sparkline


def test_a_sparkline_needs_two_points_and_survives_anything() -> None:
    assert sparkline([1.0], maximize=False) == "" and sparkline([], maximize=True) == ""
    drawing = sparkline([3.0, float("inf"), float("nan"), 1.0, 2.0], maximize=False)
    assert "from 3 to 1" in drawing and "nan" not in drawing
    assert "nan" not in sparkline([5.0, 5.0], maximize=False)
    assert len(sparkline([float(value) for value in range(10_000)], maximize=True)) < 4000


def test_values_that_are_farther_apart_than_any_number_are_drawn_within_their_frame() -> None:
    for values in ([1e308, -1e300], [1.7e308, 0.0, -1.7e308]):
        for drawing in (
            sparkline(values, maximize=False),
            report_line([Report(step=step, value=value) for step, value in enumerate(values)]),
        ):
            assert all(0 <= y <= 90 for _, y in points(drawing)), drawing


def test_reports_are_drawn_within_their_frame() -> None:
    assert report_line([Report(step=0, value=1.0)]) == ""
    values = [0.9, float("nan"), 0.5, float("inf"), 0.1]

    drawing = report_line([Report(step=10 * step, value=value) for step, value in enumerate(values)])

    assert "reports from 0.9 to 0.1" in drawing
    assert points(drawing)[0] == (0.0, 4.0) and points(drawing)[-1] == (560.0, 86.0)
    assert len(report_line([Report(step=step, value=1.0) for step in range(50_000)])) < 20_000


def test_memory_is_drawn_below_its_limit() -> None:
    trace = MemoryTrace(peak_bytes=3_000_000_000, limit_bytes=4_000_000_000, samples=((0.0, 10**9), (9.0, 3 * 10**9)))

    drawing = memory_line(trace)

    assert "memory over 9.0 s: peak 3 GB, limit 4 GB" in drawing
    limit = float(re.search(r'class="limit" x1="0" x2="560" y1="([0-9.]+)"', drawing)[1])  # type: ignore[index]
    assert limit < min(y for _, y in points(drawing))


def points(drawing: str) -> list[tuple[float, float]]:
    found = re.search(r'polyline points="([^"]*)"', drawing)
    assert found is not None
    pairs = [pair.split(",") for pair in found[1].split()]
    return [(float(x), float(y)) for x, y in pairs]
