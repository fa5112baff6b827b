"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone

import pytest

from highnoon.shared.views.formats import clock_time, duration, number, param, plural, size
from highnoon.webui.rendering import moment


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min"),
     (90000, "1 d 1 h"), (3600, "1 h"), (-3, "0.0 s")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_numbers() -> None:
    assert [size(value) for value in (None, 0, 312e6, 3.94e9, 999)] == ["–", "0 B", "312 MB", "3.94 GB", "999 B"]
    assert [size(value) for value in (999.4e3, 999.6e3, 999.7e6)] == ["999 kB", "1 MB", "1 GB"]
    assert [number(value) for value in (None, 0.123456789, float("inf"), 1e-7)] == ["–", "0.12346", "diverged", "1e-07"]
    assert [number(float(value)) for value in ("nan", "-nan", "-inf")] == ["nan", "nan", "-∞"]
    assert [param(value) for value in (True, None, 64, 0.1, "a")] == ["true", "none", "64", "0.1", "a"]


def test_text_that_reads_like_another_value_is_quoted() -> None:
    for text in (
        "2",
        "-2",
        "1e5",
        "2.",
        ".5",
        "None",
        "none",
        "true",
        "False",
        "nan",
        "-inf",
        "",
        " a",
        "a\n",
        "-",
        "1_000",
    ):
        assert param(text) == json.dumps(text), text
    for text in ("adam", "a b", "resnet50", "v2", "1x1", "größe", "nano", "relu-6"):
        assert param(text) == text


def test_clock_times_and_plurals() -> None:
    assert [clock_time(value) for value in (None, 59.94, 185, 7800)] == ["–", "59.9 s", "3:05", "2:10:00"]
    assert [plural(value, "trial") for value in (0, 1, 1200)] == ["0 trials", "1 trial", "1,200 trials"]


def test_a_moment_is_relative_and_exact_on_hover() -> None:
    then = datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc)
    assert 'title="2026-01-01 12:00:00 UTC"' in moment(then)
    assert "just now" in moment(time.time()) and "2 min ago" in moment(time.time() - 125)
