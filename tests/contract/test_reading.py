"""What dashboards read: the ledger's aggregates on PostgreSQL, and Optuna's studies without their spec."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace

import optuna
import pytest
from sqlalchemy import update

from highnoon.shared.domain.errors import InvalidInput, UnknownStudy
from highnoon.shared.domain.lease import Progress
from highnoon.shared.domain.note import NoteChange
from highnoon.shared.domain.param import Categorical, Int
from highnoon.shared.domain.states import Ending, StudyState, TicketState, TrialState
from highnoon.shared.domain.trial import MemoryTrace, Outcome
from highnoon.shared.store.control import Control
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.queries import LedgerQueries, StudyProgress
from highnoon.shared.store.schema import db_now, studies
from highnoon.webui.study_repository import StudyRepository
from tests.contract.digits import SPACE, completed, spec_of
from tests.ledger import DONE, FAILED, USED, Ledger, add_closed_tickets, rows_read


def test_what_an_open_page_reads_every_second_is_bounded_by_what_is_live_or_was_an_hour_ago(ledger: Ledger) -> None:
    # Given a study that is long over with many trials, and one that waits
    over = ledger.study(name="over")
    ledger.study(3, name="live")
    add_closed_tickets(ledger.database, over.id, 20_000)
    ledger.run(ledger.tickets(over)[0])
    assert ledger.control.finish(over.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials")
    with ledger.database.transaction() as connection:
        connection.execute(update(studies).where(studies.c.id == over.id).values(ended_at=db_now() - 3700.0))

    with rows_read(ledger.database, "hn_tickets") as read:
        marks = LedgerQueries(ledger.database).change_marks()
    assert [*marks] == ["over", "live"] and sum(read) < 20

    # And what is over and live again is read again
    assert ledger.studies.add_trials(over.id, 1, at_most=50_000) == 1
    assert LedgerQueries(ledger.database).change_marks()["over"] != marks["over"]
    assert LedgerQueries(ledger.database).change_marks()["live"] == marks["live"]


def test_the_best_value_is_of_all_feasible_trials_also_of_a_program_that_joined(ledger: Ledger) -> None:
    queries = LedgerQueries(ledger.database)
    record = ledger.study(2)
    for ticket, value in zip(ledger.tickets(record), (0.5, 0.25), strict=True):
        ledger.run(ticket, Outcome(ending=Ending.COMPLETED, value=value))
    ledger.study(1, name="other")

    def bests() -> list[float | None]:
        listed = next(one.best_value for one in queries.progress() if one.record.id == record.id)
        return [listed, queries.progress_of(record).best_value]

    foreign = ledger.optuna()
    assert bests() == [0.25, 0.25] == [foreign.best_value] * 2
    # The old way and the new way of Optuna to note what is infeasible, and values that are none
    for value, attrs in (
        (0.1, {"constraints": [-1.0, 0.5]}),
        (0.11, {"constraints:size": 1e-05}),
        (0.2, {"constraints": [-1.0, 0.0], "constraints:size": -3.5, "constraints:b": 0.0}),
        (math.inf, {"constraints:size": "wrong"}),
    ):
        foreign.add_trial(optuna.trial.create_trial(value=value, system_attrs=attrs))
    assert bests() == [0.2, 0.2]
    foreign.add_trial(optuna.trial.create_trial(value=-math.inf))
    assert bests() == [-math.inf] * 2 == [foreign.best_value] * 2


def test_trials_without_a_value_have_no_others_read(ledger: Ledger) -> None:
    queries = LedgerQueries(ledger.database)
    record = ledger.study(2)
    ledger.run(ledger.tickets(record)[0], Outcome(ending=Ending.COMPLETED, value=0.5))
    foreign = ledger.optuna()
    foreign.enqueue_trial({})
    foreign.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    with rows_read(ledger.database, "trial_values", "trial_system_attributes") as read:
        assert queries.progress_of(record).best_value == 0.5
    assert sum(read) == 0


def test_the_aggregates_of_three_tickets(ledger: Ledger) -> None:
    # Given a study with a completed, a failed and a running trial
    queries = LedgerQueries(ledger.database)
    record = ledger.study(4)
    before = queries.change_marks()
    done = Outcome(ending=Ending.COMPLETED, value=0.5, memory=USED, peak_rss_bytes=10**12)
    outcomes = [done, replace(FAILED, peak_rss_bytes=5), None]
    for number, (ticket, outcome) in enumerate(zip(ledger.tickets(record), outcomes, strict=False)):
        lease = ledger.start(ticket)
        ledger.attempts.renew(lease, Progress(step=number, rss_bytes=7))
        if outcome is not None:
            ledger.finish(lease, outcome)

    # When a client reads
    (progress,) = queries.progress()
    assert queries.progress_of(record) == progress
    (running,) = queries.attempts.running()

    # Then all is there
    assert queries.has_ledger() and queries.change_marks() != before
    assert (progress.record.name, progress.best_value, progress.counts.attempts) == ("digits", 0.5, 3)
    assert progress.counts.by_state == {TicketState.CLOSED: 2, TicketState.RUNNING: 1, TicketState.WAITING: 1}
    assert (running.study, running.trial_number, running.step, running.rss_bytes) == ("digits", 2, 2, 7)
    assert 0 <= running.age_s < 30 and 0 < running.lease_left_s <= 30
    assert [span.ending for span in queries.attempts.spans(record.id)] == [Ending.COMPLETED, Ending.FAILED, None]
    assert [span.peak_bytes for span in queries.attempts.spans(record.id)] == [300, 5, None], (
        "measured, else the kernel's"
    )
    assert [span.trial_number for span in queries.attempts.spans(record.id, limit=1)] == [2]
    assert [span.trial_number for span in queries.attempts.spans(record.id, numbers=[1])] == [1]
    assert set(queries.attempts.causes(record.id)) == {(Ending.COMPLETED, None, 1), (Ending.FAILED, "exception", 1)}
    assert queries.values(record.id) == [0.5]
    assert [(queue.resource, queue.waiting, queue.running) for queue in queries.queues()] == [("cpu", 1, 1)]
    assert queries.leader() is None


def test_trial_that_ended_before_its_memory_was_read_has_no_peak(ledger: Ledger) -> None:
    record = ledger.study()
    ledger.run(ledger.tickets(record)[0], replace(DONE, memory=MemoryTrace(peak_bytes=0), peak_rss_bytes=10**9))
    (span,) = LedgerQueries(ledger.database).attempts.spans(record.id)
    assert span.peak_bytes is None


def test_tickets_of_studies_that_ended_long_ago_are_not_counted_each_second(ledger: Ledger) -> None:
    queries = LedgerQueries(ledger.database)
    record = ledger.study(3)
    for ticket in ledger.tickets(record):
        ledger.run(ticket)
    over = {"before": StudyState.RUNNING, "state": StudyState.FINISHED, "reason": "n_trials"}
    assert Control(ledger.database).finish(record.id, **over)
    assert len(queries.change_marks()["digits"]) > 3

    with ledger.database.transaction() as connection:
        connection.execute(update(studies).values(ended_at=studies.c.ended_at - 7200))
    before = queries.change_marks()["digits"]
    assert len(before) == 3, "what stands in the study's own row, and its notes"

    assert ledger.studies.add_trials(record.id, 1, at_most=9) == 1
    assert queries.change_marks()["digits"] != before


def test_what_people_write_beside_a_quiet_study_changes_its_mark_and_no_other(ledger: Ledger) -> None:
    queries, notes = LedgerQueries(ledger.database), NoteStore(ledger.database)
    record, _ = ledger.study(3, name="quiet"), ledger.study(3, name="other")
    ledger.run(ledger.tickets(record)[0])
    marks = [queries.change_marks()]
    for change in (
        lambda: ledger.studies.set_share(record.id, {"priority": 7}),
        lambda: notes.change("quiet", None, NoteChange(text="a")),
        lambda: notes.change("quiet", None, NoteChange(text="b")),
        lambda: notes.change("quiet", 0, NoteChange(tag=("kept",))),
        lambda: notes.change("quiet", 0, NoteChange(untag=("kept",))),
    ):
        change()
        marks.append(queries.change_marks())

    assert len({mark["quiet"] for mark in marks}) == len(marks)
    assert len({mark["other"] for mark in marks}) == 1


def test_dashboard_counts_a_study_that_ended_long_ago_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = ledger.study(2, name="old"), ledger.study(2, name="new")
    for ticket in ledger.tickets(old):
        ledger.run(ticket)
    assert Control(ledger.database).finish(old.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="done")
    with ledger.database.transaction() as connection:
        connection.execute(update(studies).where(studies.c.id == old.id).values(ended_at=studies.c.ended_at - 7200))
    counted: list[set[str]] = []
    progress = LedgerQueries.progress

    def noted(queries: LedgerQueries, *, ended_within_s: float | None = None) -> list[StudyProgress]:
        found = progress(queries, ended_within_s=ended_within_s)
        counted.append({one.record.name for one in found})
        return found

    monkeypatch.setattr(LedgerQueries, "progress", noted)
    with closing(StudyRepository(lambda: ledger.database.url)) as repository:

        def look() -> list[tuple[str, str, int, int]]:
            repository.invalidate("new")
            return [(study.name, study.state, study.complete, study.total) for study in repository.studies()]

        first = look()
        ledger.run(ledger.tickets(new)[0])
        second = look()
        ledger.studies.add_trials(old.id, 1, at_most=9)
        third = look()

    assert first == [("new", "running", 0, 2), ("old", "finished", 2, 2)]
    assert second == [("new", "running", 1, 2), ("old", "finished", 2, 2)]
    assert third == [("new", "running", 1, 2), ("old", "running", 2, 3)]
    assert counted == [{"old", "new"}, {"new"}, {"old", "new"}]


def test_the_catalogue_counts_without_loading(optuna_store: OptunaStore) -> None:
    optuna_store.create_study("empty", "maximize")
    optuna_store.create_study("digits", "minimize")
    study = optuna_store.open(spec_of())
    study.finish_trial(study.start_trial(ordinal=0).trial_id, completed())
    study.start_trial(ordinal=1)

    empty, digits = optuna_store.catalogue()

    assert (empty.name, empty.direction, empty.total) == ("empty", "maximize", 0)
    assert dict(digits.by_state) == {TrialState.COMPLETE: 1, TrialState.RUNNING: 1}


def test_a_study_of_several_objectives_is_read_with_all_its_values(optuna_store: OptunaStore) -> None:
    goals = optuna.create_study(storage=optuna_store._storage, study_name="goals", directions=["minimize", "maximize"])
    goals.optimize(lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)), n_trials=12)

    (entry,) = optuna_store.catalogue()
    assert (entry.direction, entry.total) == ("minimize, maximize", 12)
    view = optuna_store.view("goals")
    assert view.direction == "minimize, maximize"
    assert [(trial.value, trial.values) for trial in view.trials()] == [
        (None, (trial.params["x"], trial.params["y"])) for trial in view.trials()
    ]
    assert {trial.number for trial in view.best()} == {trial.number for trial in goals.best_trials}
    assert view.param_importance().keys() == {"x", "y"}


def test_a_view_needs_no_spec_and_follows_the_study(optuna_store: OptunaStore) -> None:
    optuna_store.create_study("digits", "minimize")
    study = optuna_store.open(spec_of())
    view = optuna_store.view("digits")
    assert view.trials() == [] and view.direction == "minimize" and view.param_importance() == {}

    asked = study.start_trial(ordinal=0)
    assert [trial.state for trial in view.trials()] == [TrialState.RUNNING]
    study.finish_trial(asked.trial_id, completed(0.5))

    assert [(trial.state, trial.value) for trial in view.trials()] == [(TrialState.COMPLETE, 0.5)]
    assert view.space()["width"] == Int(low=32, high=512, step=32)
    assert view.space()["optimizer"] == Categorical(choices=("adam", "sgd", None, True))
    assert view.trials() == study.trials()


def test_a_view_of_nothing_is_unknown(optuna_store: OptunaStore) -> None:
    with pytest.raises(UnknownStudy, match="letters"):
        optuna_store.view("letters")


def test_an_enqueued_point_is_asked_next(optuna_store: OptunaStore) -> None:
    optuna_store.create_study("digits", "minimize")
    study = optuna_store.open(spec_of())

    study.enqueue({"width": 64, "optimizer": "sgd"})

    params = study.start_trial(ordinal=0).params
    assert (params["width"], params["optimizer"]) == (64, "sgd") and params.keys() == SPACE.keys()
    assert [*study.trials()[0].params] == [*params], "in the same order"


@pytest.mark.parametrize("name", ["a\0b", "\udcff"])
def test_a_name_that_no_database_can_hold_is_unknown(optuna_store: OptunaStore, ledger: Ledger, name: str) -> None:
    with pytest.raises(UnknownStudy, match="no study"):
        optuna_store.view(name)
    with pytest.raises(UnknownStudy, match="no study"):
        ledger.access.studies.get(name)


def test_a_point_outside_of_the_space_is_refused_with_every_reason(optuna_store: OptunaStore) -> None:
    optuna_store.create_study("digits", "minimize")
    study = optuna_store.open(spec_of())

    with pytest.raises(InvalidInput) as refused:
        study.enqueue({"widht": 64, "dropout": 0.9, "optimizer": "lion"})

    assert [problem.key for problem in refused.value.problems] == ["widht", "dropout", "optimizer"]
    assert "width" in refused.value.problems[0].hint
    assert study.trials() == []
