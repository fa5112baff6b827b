"""Progress: the pace, the line, the bar, and a watch over a study."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from highnoon.coordinator.cli.progress import Lines, LiveView, Pace, WatchedStudy, progress_line, watch
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.store.queries import StudyProgress
from highnoon.shared.store.studies import Studies, StudyCounts, StudyRecord
from highnoon.shared.views.studies import StudySummary

RECORD = StudyRecord(
    id=1, name="digits", state=StudyState.RUNNING, stop_reason=None, queue="cpu", spec={"direction": "minimize"},
    submitted_at=0.0, started_at=None, ended_at=None,
)  # fmt: skip


def counts(closed: int, running: int = 0, waiting: int = 0, failed: int = 0, cancelled: int = 0) -> StudySummary:
    seen = StudyCounts(
        by_state={
            TicketState.CLOSED: closed,
            TicketState.RUNNING: running,
            TicketState.WAITING: waiting,
            TicketState.CANCELLED: cancelled,
        },
        by_ending={Ending.COMPLETED: closed - failed, Ending.FAILED: failed},
    )
    return StudySummary.of_ledger(StudyProgress(record=RECORD, counts=seen, best_value=None))


def watched(seen: StudySummary, per_minute: float | None = None, best: float | None = None) -> WatchedStudy:
    return WatchedStudy(study=replace(seen, best=best), per_minute=per_minute)


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_pace_counts_from_the_first_trial_that_runs_and_only_what_this_watch_saw() -> None:
    pace = Pace(done_before=10)
    assert pace.per_minute(counts(closed=10, waiting=10), now=0.0) is None
    assert pace.per_minute(counts(closed=10, running=2), now=30.0) is None
    assert pace.per_minute(counts(closed=15, running=2), now=60.0) == pytest.approx(10.0)


def test_a_pause_does_not_count_and_the_last_trials_make_the_pace() -> None:
    pace, slow, fast = Pace(done_before=0), 60.0, 6.0
    now = 0.0
    for closed in range(11):
        pace.per_minute(counts(closed=closed, running=1), now)
        now += slow
    assert pace.per_minute(counts(closed=11, running=0), now) == pytest.approx(1.0)
    now += 10_000.0
    assert pace.per_minute(counts(closed=11, running=1), now) == pytest.approx(1.0)
    for closed in range(12, 80):
        now += fast
        rate = pace.per_minute(counts(closed=closed, running=1), now)
    assert rate == pytest.approx(10.0)


def test_there_is_no_time_to_go_while_nothing_runs() -> None:
    paused = counts(closed=15, waiting=5)
    assert watched(paused, per_minute=10.0).eta_s is None
    assert "ETA" not in progress_line(watched(paused, per_minute=10.0))


def test_the_time_to_go_leaves_out_what_was_cancelled() -> None:
    assert watched(counts(closed=15, running=2, waiting=3, cancelled=80), per_minute=10.0).eta_s == pytest.approx(30.0)
    assert watched(counts(closed=15, waiting=5)).eta_s is None
    assert watched(counts(closed=20), per_minute=10.0).eta_s is None


def test_the_line_has_every_number() -> None:
    seen = counts(closed=15, running=2, waiting=3, failed=4)
    line = progress_line(watched(seen, per_minute=10.0, best=0.018123456))
    assert line == "best 0.0181235  2 running  0 pruned  4 failed  10.0 trials/min  ETA 30.0 s"
    assert progress_line(watched(counts(0, waiting=5))) == "nothing runs yet: waiting for a free worker"


def test_a_pipe_gets_a_line_when_something_changed_but_no_flood() -> None:
    console = plain_console()
    lines = Lines(console)
    for closed in range(100):
        lines.show(watched(counts(closed, running=1)))
    lines.say("started again: redis")
    assert written(console).splitlines() == [
        "digits  0/1  best -  1 running  0 pruned  0 failed",
        "started again: redis",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_bar_fits_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    bar = LiveView(console)
    bar.show(watched(counts(closed=15, running=12, waiting=85, failed=4), per_minute=142.2, best=0.000940279))
    bar.say("started again: redis")
    bar.close()
    drawn = [line.rsplit("\x1b[2K", 1)[-1] for line in written(console).replace("\r", "").splitlines()]
    assert any("15/112" in line for line in drawn) and any("4 failed" in line for line in drawn)
    assert any("started again: redis" in line for line in drawn)
    assert max(map(len, drawn)) <= width + len("\x1b[?25h")


class FourWaiting(Studies):
    """A study of four tickets of which none has begun."""

    def __init__(self) -> None:
        pass

    def get(self, name: str) -> StudyRecord:
        return RECORD

    def counts(self, study_id: int) -> StudyCounts:
        return StudyCounts(by_state={TicketState.WAITING: 4})

    def best_value(self, study_id: int, *, maximize: bool) -> float | None:
        return None


@pytest.fixture
def studies() -> Studies:
    return FourWaiting()


def test_a_watch_ends_when_go_on_returns_false(studies: Studies) -> None:
    console = plain_console()
    assert watch("digits", studies, console, go_on=lambda _: False) is None
    assert written(console) == "digits  0/4  nothing runs yet: waiting for a free worker\n"


def test_a_watch_reports_an_outage_once_and_goes_on(studies: Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    console, looks = plain_console(), iter([True, True, True, False])
    really, outages = studies.best_value, iter([True, True, False, False])

    def best_value(study_id: int, *, maximize: bool) -> float | None:
        if next(outages):
            raise ServiceUnavailable("database away")
        return really(study_id, maximize=maximize)

    monkeypatch.setattr(studies, "best_value", best_value)
    monkeypatch.setattr("highnoon.coordinator.cli.progress._LOOK_S", 0.0)

    assert watch("digits", studies, console, go_on=lambda _: next(looks)) is None

    first, *others = written(console).splitlines()
    assert first == "database away; training goes on, waiting for it"
    assert others == ["digits  0/4  nothing runs yet: waiting for a free worker"]
