"""Log lines: one event, one line, the same ids in the same order."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from highnoon.shared.runtime.logs import ROOT, configure, event


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A configured stream; the process's own handlers and levels are restored afterwards."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in ("", ROOT)}
    root.handlers.clear()
    stream = io.StringIO()
    configure("info", stream)
    yield stream
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


logger = logging.getLogger("highnoon.coordinator.test")


def test_an_event_is_one_line_with_the_ids_first_and_in_order(stream: io.StringIO) -> None:
    event(logger, "claim", queue="cpu", worker="a1", attempt=2, ticket=17, study="digits", trial=None)

    line = stream.getvalue()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO "
        r"action=claim study=digits ticket=17 attempt=2 worker=a1 queue=cpu\n",
        line,
    )


def test_values_that_would_break_the_line_are_quoted(stream: io.StringIO) -> None:
    event(logger, "fail", reason='no "space"\nleft', empty="", pair="a=b", name="Zoë", value=0.1 + 0.2, oom=True)

    assert stream.getvalue().count("\n") == 1
    assert r'reason="no \"space\"\nleft" empty="" pair="a=b" name=Zoë value=0.3 oom=true' in stream.getvalue()


def test_level_is_for_our_loggers_and_others_only_warn(stream: io.StringIO) -> None:
    event(logger, "tick", level=logging.DEBUG)
    logging.getLogger("urllib3").info("connected")
    logging.getLogger("urllib3").warning("[Memory] as it is, 100%")

    assert stream.getvalue().endswith("WARNING [Memory] as it is, 100%\n")
    assert stream.getvalue().count("\n") == 1


def test_configuring_twice_does_not_double_the_lines(stream: io.StringIO) -> None:
    configure("debug", stream)
    event(logger, "tick", level=logging.DEBUG)

    assert stream.getvalue().count("action=tick") == 1
