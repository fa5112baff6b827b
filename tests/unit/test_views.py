"""What watch, workers, compare and importance draw: readable in 80 columns, with everything that matters."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from highnoon.coordinator.cli.comparison import Side, better, comparison_object, comparison_table
from highnoon.coordinator.cli.nodes import named_worker, workers_table
from highnoon.coordinator.cli.progress import Objects, Slots, WatchedStudy, drawn
from highnoon.coordinator.cli.tables import importance_table, size_cell, studies_table
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.states import Ending, StudyState, TicketState, TrialState, WorkerState
from highnoon.shared.domain.trial import Params, Trial
from highnoon.shared.store.attempt_queries import RunningAttempt
from highnoon.shared.store.nodes import Worker
from highnoon.shared.store.queries import StudyProgress
from highnoon.shared.store.study_records import StudyCounts, StudyRecord
from highnoon.shared.views.studies import StudySummary, differences, worker_object

COUNTS = StudyCounts(
    by_state={TicketState.CLOSED: 6, TicketState.RUNNING: 2, TicketState.WAITING: 4},
    by_ending={Ending.COMPLETED: 4, Ending.PRUNED: 1, Ending.FAILED: 1},
    attempts=9,
)


def record(name: str = "digits", state: StudyState = StudyState.RUNNING, **spec: Any) -> StudyRecord:
    asked = {"name": name, "direction": "minimize", "n_trials": 12, "search_space": {"x": ["uniform", 0, 1]}, **spec}
    return StudyRecord(
        id=1, name=name, state=state, stop_reason=None, queue="cpu", spec=asked,
        submitted_at=90.0, started_at=100.0, ended_at=None,
    )  # fmt: skip


def run(slot: int, **fields: Any) -> RunningAttempt:
    known = {"study": "digits", "attempt": 1, "trial_number": 6 + slot}
    where = {"worker_id": "a1b2c3d4e5", "host": "node-a", "pid": 4300 + slot}
    how = {"age_s": 65.0, "lease_left_s": 20.0, "step": 3, "rss_bytes": 481_000_000}
    return RunningAttempt(**{**known, **where, **how, **fields})


def worker(name: str, host: str, slots: int = 4) -> Worker:
    return Worker(
        id=name, host=host, pid=1, slots=slots, queues=("cpu", "gpu"), state=WorkerState.ACTIVE, silent_s=1.25
    )


def side(name: str, value: float | None, params: Params, **spec: Any) -> Side:
    best = None if value is None else Trial(number=3, state=TrialState.COMPLETE, params=params, value=value)
    found = record(name, **spec)
    summary = StudySummary.of_ledger(StudyProgress(record=found, counts=COUNTS, best_value=value))
    return Side(summary=summary, space={}, best=best, trials=[best] if best else [], first_start=100.0, now=165.0)


def screen(watched: WatchedStudy, slots: Slots, *, rows: int = 20) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    console.print(drawn(watched, slots, rows=rows))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def watched(state: StudyState = StudyState.RUNNING, counts: StudyCounts = COUNTS) -> WatchedStudy:
    return WatchedStudy(
        study=StudySummary.of_ledger(StudyProgress(record=record(state=state), counts=counts, best_value=0.125)),
        per_minute=12.0,
    )


def test_the_live_view_shows_what_each_slot_runs() -> None:
    lines = screen(watched(), Slots(running=[run(0), run(1, step=None, rss_bytes=None, attempt=2)], total=4, busy=3))
    assert lines[0].startswith("digits ━") and lines[0].endswith("6/12")
    assert lines[1] == "best 0.125  2 running  1 pruned  1 failed  12.0 trials/min  ETA 30.0 s"
    assert [line.split() for line in lines[3:6]] == [
        ["slot", "trial", "attempt", "step", "memory", "runs", "for"],
        ["node-a:4300", "6", "1", "3", "481", "MB", "1:05"],
        ["node-a:4301", "7", "2", "-", "-", "1:05"],
    ]
    assert lines[7] == "3 of 4 slots busy; 4 trials wait; Ctrl-C leaves"
    assert max(map(len, lines)) <= 80


def test_the_live_view_stays_on_the_screen_and_counts_hidden_slots() -> None:
    lines = screen(watched(), Slots(running=[run(slot) for slot in range(50)], total=64, busy=50), rows=5)
    assert len(lines) == 11 and lines[-1].startswith("… and 45 more; 50 of 64 slots busy")


def test_the_live_view_explains_why_nothing_runs_and_ends_with_the_study() -> None:
    no_slots = Slots(running=[], total=0, busy=0)
    last = watched(counts=replace(COUNTS, by_state={TicketState.WAITING: 1}))
    assert screen(last, no_slots)[-1] == "no worker is there; 1 trial waits; Ctrl-C leaves"
    assert "no worker is there" in screen(watched(), no_slots)[-1]
    assert "paused" in screen(watched(StudyState.PAUSED), no_slots)[-1]
    assert len(screen(watched(StudyState.FINISHED), no_slots)) == 2


def test_a_summary_shows_its_numbers_and_not_the_whole_specification() -> None:
    assert "complete=4" in repr(watched().study) and "search_space" not in repr(watched().study)


def test_objects_are_written_when_something_has_changed() -> None:
    lines: list[str] = []
    display = Objects(lines.append)
    for _ in range(3):
        display.show(watched())
    display.show(watched(StudyState.FINISHED))
    assert len(lines) == 2 and all("\n" not in line for line in lines)


def test_each_node_has_a_line_and_each_trial_one_below_it() -> None:
    nodes = [worker("a1b2c3d4e5", "node-a"), worker("ffffffffff", "node-b", slots=1)]
    runs = [run(0), run(1, attempt=2, study="a-study-with-a-long-name")]
    lines = workers_table(nodes, runs)
    assert lines[1].split() == ["a1b2c3d4", "node-a", "cpu,gpu", "2/4", "active", "1.2", "s", "ago", "962", "MB"]
    assert lines[2].split() == ["pid", "4300", "digits", "trial", "6", "step", "3", "1:05", "481", "MB"]
    assert "trial 7 (attempt 2)" in lines[3] and lines[4].startswith("ffffffff")
    assert max(map(len, lines)) <= 80
    objects = [worker_object(node, runs) for node in nodes]
    assert [len(node["running"]) for node in objects] == [2, 0] and objects[0]["running"][0]["trial"] == 6


def test_a_worker_is_named_by_the_beginning_of_its_id_or_by_its_host() -> None:
    nodes = [worker("aa11", "node-a"), worker("aa22", "node-b"), worker("bb33", "node-b")]
    assert named_worker("aa1", nodes).id == "aa11" and named_worker("node-a", nodes).id == "aa11"
    with pytest.raises(InvalidInput, match=r"WORKER: means several nodes \(got 'node-b'\)\. Name one of aa22, bb33"):
        named_worker("node-b", nodes)
    with pytest.raises(InvalidInput, match=r"is no node that is there.*Did you mean node-a"):
        named_worker("nod-a", nodes)


def test_two_studies_stand_side_by_side() -> None:
    one = side("digits", 0.5, {"x": 0.25, "optimizer": "adam"})
    other = side("wide", 0.25, {"x": 0.75}, n_trials=40, sampler={"name": "random"}, search_space={"x": ["int", 0, 9]})
    lines = comparison_table(one, other)
    shown = {tuple(line.split()) for line in lines}
    assert ("best", "value", "0.5", "0.25") in shown and ("trials", "6/12", "6/12") in shown
    assert ("time", "1:05", "1:05") in shown and ("optimizer", "adam", "-") in shown
    assert ("sampler.name", "-", "random") in shown and ("n_trials", "12", "40") in shown
    assert lines[-1] == "wide is better by 0.25"
    assert max(map(len, lines)) <= 80
    answer = comparison_object(one, other)
    assert answer["better"] == "wide" and answer["differs"]["n_trials"] == [12, 40]
    assert answer["studies"]["digits"]["best_value"] == 0.5


def test_trials_that_a_limit_has_dropped_count_in_a_comparison_as_in_the_list() -> None:
    counts = replace(COUNTS, by_state={TicketState.CLOSED: 6, TicketState.CANCELLED: 94})
    ended = StudySummary.of_ledger(StudyProgress(record=record(), counts=counts, best_value=0.5))
    one = replace(side("digits", 0.5, {}), summary=ended)
    assert ["trials", "6/100", "6/12"] in [line.split() for line in comparison_table(one, side("wide", 0.5, {}))]
    assert "6/100" in studies_table([ended])[1]


def test_what_cannot_be_compared_is_not() -> None:
    one = side("digits", 0.5, {})
    for other, why in (
        (side("up", 0.5, {}, direction="maximize"), "one is minimised"),
        (side("else", 0.7, {}, objective="other.py:objective"), "they have different objectives"),
        (side("small", 0.7, {}, param_budget=1000), "they have different parameter budgets"),
        (side("new", None, {}), "not both have"),
        (side("same", 0.5, {}), "equally good"),
    ):
        assert better(one, other) is None and why in comparison_table(one, other)[-1]
    assert better(side("a", 1.0, {}, direction="maximize"), side("b", 2.0, {}, direction="maximize")) == "b"
    assert list(differences([one.spec, one.spec])) == []


def test_what_differs_in_every_two_studies_was_not_asked_differently() -> None:
    own = {"seed": 1, "git": "a" * 40, "code": "b" * 64, "bundle": "c" * 64, "code_dir": "/srv/one"}
    asked = {"n_trials": 5, "search_space": {"seed": ["int", 0, 9]}}
    found = differences([{"name": "one", **own, **asked}, {"name": "other", **asked, "search_space": {}}])
    assert list(found) == [("search_space.seed", [["int", 0, 9], None])]


def test_importances_have_bars() -> None:
    lines = importance_table({"learning_rate": 0.75, "units": 0.2496, "l2": 0.0004})
    assert lines[1].split() == ["learning_rate", "75.0%", "█" * 40]
    assert lines[2].split()[1:] == ["25.0%", "█" * 13] and lines[3].endswith("0.0%  ▏")


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (0, "0 B"), (640_000_000, "640 MB"), (3_912_000_000, "3.91 GB")]
)
def test_sizes_have_units(count: int | None, text: str) -> None:
    assert size_cell(count) == text
