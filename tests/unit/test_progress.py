"""Progress in a notebook, and the drawing of a study's history."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pty
import re
import sys
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

import highnoon as hn
from highnoon.handle_view import history_svg
from highnoon.progress import progress_html, progress_view
from highnoon.watching import Watcher, log_frozen


class Handle:
    """What IPython gives for a place that is redrawn."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, one: Any) -> None:
        self.shown.append(one._repr_html_())


@pytest.mark.parametrize(("shell", "bars"), [(SimpleNamespace(kernel=1), 1), (SimpleNamespace(), 0), (None, 0)])
def test_a_bar_is_drawn_in_a_notebook_alone(monkeypatch: pytest.MonkeyPatch, shell: object, bars: int) -> None:
    handle = Handle()
    display = SimpleNamespace(display=lambda one, display_id: handle)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    with progress_view() as view:
        assert not view.is_bar, "lines are shown, too"
        view.show("<b>", 1, 4, "best 0.5")
    assert handle.shown == [progress_html("<b>", 1, 4, "best 0.5")] * bars
    assert "&lt;b&gt;: 1 of 4 trials  best 0.5" in progress_html("<b>", 1, 4, "best 0.5")


@pytest.mark.parametrize("isolation", ["none", "fork"])
def test_the_line_of_a_trial_is_the_same_wherever_it_ran(isolation: str, caplog: pytest.LogCaptureFixture) -> None:
    # Given a study that scores by size, with a trial that completes, one that is pruned and one that fails
    def objective(params: dict[str, Any]) -> dict[str, float]:
        if params["x"] == 1:
            raise hn.TrialPruned
        return {"loss": 0.5, "params": 100 // (params["x"] - 2)}

    caplog.set_level(logging.INFO, logger="highnoon")
    manager = hn.HPOTrialManager("digits", 3, sampler="grid", isolation=isolation, param_budget=50)
    manager.optimize(objective, {"x": ("int", 1, 3)})

    # When its trials are logged as Optuna has them, in the way of a cluster
    for frozen in manager.study.trials:
        log_frozen(manager.study, frozen)

    # Then their lines are the same
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("action=trial ")]
    lines = [re.sub(r" seconds=\S+", " seconds=_", line) for line in lines]
    assert lines[:3] == lines[3:]
    ends = (" loss=0.5 size=100 seconds=_", "seconds=_ cause=pruner", "seconds=_ cause=exception")
    assert all(any(end in line for line in lines) for end in ends)
    failed = [record.levelno for record in caplog.records if "state=FAIL" in record.getMessage()]
    assert failed == [logging.WARNING] * 2


class SlowWords:
    """Words whose drawing begins, and ends when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __format__(self, _: str) -> str:
        self.begun.set()
        self.may_end.wait(30)
        return ""


def shown(screen: int) -> None:
    """Takes what is drawn there, so that the terminal is never full."""
    with suppress(OSError):  # once the terminal is closed
        while os.read(screen, 1000):
            pass


def test_a_wait_for_a_study_logs_its_fault_once(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr("highnoon.watching._LOOK_S", 0.0)
    faults = iter([None, "declined: no torch", "declined: no torch", None, "declined: no torch", None])
    left = iter([False] * 5 + [True])

    def summary() -> Any:
        counts = dict.fromkeys(("closed", "total", "complete", "pruned", "failed", "stopped", "running", "waiting"), 0)
        record = SimpleNamespace(fault=next(faults))
        return SimpleNamespace(**counts, best=None, record=record, is_over=next(left))

    with progress_view(shown=False) as view:
        Watcher(name="digits", summary=summary, study=pytest.fail, is_embedded=False).watch([], view, None)
    assert [record.getMessage() for record in caplog.records] == [
        'action=study_fault study=digits reason="A worker cannot start its trials: no torch"'
    ]


def test_process_that_is_forked_while_the_bar_is_redrawn_can_print(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, terminal = pty.openpty()
    threading.Thread(target=shown, args=(screen,), daemon=True).start()
    words = SlowWords()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress_view() as view:
            assert view.is_bar
            view.show("digits", 0, 1, cast(str, words))
            assert words.begun.wait(30)
            child = multiprocessing.get_context("fork").Process(target=print, args=("a line",))
            threading.Timer(0.1, words.may_end.set).start()
            child.start()
            child.join(10)
            child.kill()
            child.join()
        monkeypatch.undo()
    assert child.exitcode == 0


class Written:
    """What training scripts put in the place of stdout, to write to a file as well."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_what_is_printed_elsewhere_stays_there_while_a_bar_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, terminal = pty.openpty()
    threading.Thread(target=shown, args=(screen,), daemon=True).start()
    out = Written()
    with os.fdopen(terminal, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setattr(sys, "stdout", out)
        with progress_view() as view:
            assert view.is_bar
            print("accuracy 0.98")
    assert out.text == "accuracy 0.98\n"


def test_the_history_has_each_value_and_the_best_so_far() -> None:
    drawn = history_svg([3.0, math.inf, 1.0, 2.0], maximize=False)
    assert drawn.count("<circle") == 3 and "best 1" in drawn
    assert 'points="4.0,4.0 240.0,116.0 476.0,116.0"' in drawn
    assert "best 3" in history_svg([3.0, 1.0], maximize=True)
    assert history_svg([1.0, math.nan], maximize=False) == ""
    assert "nan" not in history_svg([1.0, 1.0], maximize=False)
