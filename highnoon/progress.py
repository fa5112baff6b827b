"""How far a study is, for a person who waits: a bar in a terminal and in a notebook, a line for each trial elsewhere.

The lines are records of the logger `highnoon` with level INFO, in the format that the program has chosen. A program
that has configured no logging gets them on stderr while it waits, as they are.
"""

from __future__ import annotations

import html
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from highnoon.shared.domain.states import TrialState
from highnoon.shared.runtime.logs import event

if TYPE_CHECKING:
    from rich.progress import Progress

_LOGGER = logging.getLogger("highnoon")

_REDRAW_S = 0.1
_drawing = threading.RLock()
"""Held while a bar is redrawn, and around each fork.

Rich and the stream have locks of their own: a process that is forked meanwhile inherits them locked, and would wait for
ever when it prints.
"""
os.register_at_fork(before=_drawing.acquire, after_in_parent=_drawing.release, after_in_child=_drawing.release)


class ProgressView:
    """Where the number of trials that are over, and a few words, are shown."""

    def __init__(self, bar: Progress | None, notebook: Any = None) -> None:
        """`notebook` shows HTML by its `update`, as IPython's display handles do."""
        self._bar = bar
        self._notebook = notebook
        self._task = None if bar is None else bar.add_task("", total=None, words="")

    @property
    def is_bar(self) -> bool:
        """False where lines are all that is shown."""
        return self._bar is not None

    def show(self, name: str, over: int, total: int, words: str) -> None:
        """Redraws the bar; does nothing without one."""
        if self._notebook is not None:
            self._notebook.update(_Html(progress_html(name, over, total, words)))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=name, completed=over, total=total, words=words)


def log_trial(
    study: str,
    number: int,
    state: TrialState,
    *,
    value: str | float | None,
    loss: float | None,
    size: int | None,
    seconds: float | None,
    cause: str | None,
    reason: str | None,
) -> None:
    """The line of a trial that has ended, wherever it ran."""
    event(
        _LOGGER,
        "trial",
        level=logging.WARNING if state is TrialState.FAIL else logging.INFO,
        study=study,
        trial=number,
        state=state,
        value=value,
        loss=None if value in (None, loss) else loss,
        size=size,
        seconds=seconds,
        cause=cause or None,
        reason=reason or None,
    )


@contextmanager
def progress_view(*, shown: bool = True) -> Iterator[ProgressView]:
    """Shows progress meanwhile; nothing with `shown` off."""
    if not shown:
        yield ProgressView(None)
    elif _is_terminal(sys.stderr):
        with _bar() as bar, _lines(logging.WARNING):
            yield ProgressView(bar)
    else:
        with _lines(logging.INFO):
            yield ProgressView(None, _notebook())


def _is_terminal(stream: Any) -> bool:
    """False for what a program has put in a stream's place and closed, or without this function."""
    try:
        return stream is not None and bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class _Html:
    """As Jupyter takes it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text


def progress_html(name: str, over: int, total: int, words: str) -> str:
    """A bar of HTML, without a script and without widgets."""
    label = html.escape(f"{name}: {over} of {total} trials  {words}".rstrip())
    return f'<div><progress value="{over}" max="{max(total, 1)}" style="width:20em"></progress> {label}</div>'


def _notebook() -> Any:
    """A place below the cell that runs, which is redrawn; None outside of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display = sys.modules["IPython"].display
    return display.display(_Html(""), display_id=True)


@contextmanager
def _bar() -> Iterator[Progress]:
    """Redrawn by a thread of its own: Rich's thread may hold locks while the program forks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    over = threading.Event()
    # What goes to a file or another program is no part of the screen.
    on_screen = _is_terminal(sys.stdout)
    words = TextColumn("{task.fields[words]}")
    with Progress(*columns, words, console=console, auto_refresh=False, redirect_stdout=on_screen) as bar:
        thread = threading.Thread(target=_redraw, args=(bar, over), name="highnoon-progress", daemon=True)
        thread.start()
        try:
            yield bar
        finally:
            over.set()
            thread.join()


def _redraw(bar: Progress, over: threading.Event) -> None:
    while not over.wait(_REDRAW_S):
        with _drawing:
            bar.refresh()


@contextmanager
def _lines(level: int) -> Iterator[None]:
    """Only where the program has not configured logging: what it has configured decides."""
    if _LOGGER.handlers or logging.getLogger().handlers or _LOGGER.level != logging.NOTSET:
        yield
        return
    handler = logging.StreamHandler()
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(level)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(logging.NOTSET)
