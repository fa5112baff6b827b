"""Several objectives and constraints, in memory, on SQLite, on PostgreSQL and in the ledger."""

from __future__ import annotations

import math

import optuna
import pytest

from highnoon.shared.domain.errors import StudyConflict, UserInputError
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.queries import LedgerQueries
from tests.contract.digits import spec_of
from tests.ledger import Ledger, point

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

TWO = {"loss": "minimize", "accuracy": "maximize"}


def opened(store: OptunaStore, **more: object) -> OptunaStudy:
    spec = spec_of(**more)
    store.create_study(spec.name, spec.direction, spec.scoring, spec.search_space)
    return store.open(spec)


def several(store: OptunaStore, **more: object) -> OptunaStudy:
    return opened(store, objectives=TWO, **more)


def finish(study: OptunaStudy, *values: float, **more: object) -> int:
    started = study.start_trial(ordinal=len(study.trials()))
    outcome = Outcome(ending=Ending.COMPLETED, values=values, **more)  # type: ignore[arg-type]
    assert study.finish_trial(started.trial_id, outcome)
    assert study.finish_trial(started.trial_id, outcome), "the same ending again changes nothing"
    return started.number


def test_each_objective_is_stored_as_optuna_stores_it(optuna_store: OptunaStore) -> None:
    study = several(optuna_store)
    finish(study, 0.25, 0.75)
    finish(study, math.inf, 0.5)
    theirs = optuna.load_study(study_name="digits", storage=optuna_store._storage)
    assert [trial.values for trial in theirs.trials] == [[0.25, 0.75], [math.inf, 0.5]]
    assert [direction.name for direction in theirs.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert theirs.metric_names == ["loss", "accuracy"]
    assert optuna_store.view("digits").objectives() == ("loss", "accuracy")
    assert [(trial.value, trial.values) for trial in study.trials()] == [(None, (0.25, 0.75)), (None, (math.inf, 0.5))]


def test_the_best_are_those_that_none_beats_as_optuna_finds_them(optuna_store: OptunaStore) -> None:
    study = several(optuna_store)
    assert study.best_trials() == []
    for values in ((0.3, 0.9), (0.2, 0.8), (0.4, 0.85), (0.1, 0.1), (0.2, 0.8)):
        finish(study, *values)
    assert [trial.number for trial in study.best_trials()] == [3, 1, 4, 0], "equals are all there"
    assert {trial.number for trial in study.optuna_study.best_trials} == {0, 1, 3, 4}
    assert [trial.number for trial in optuna_store.view("digits").best()] == [3, 1, 4, 0]
    with pytest.raises(UserInputError, match="several objectives"):
        study.best_trial()


def test_an_infeasible_trial_is_never_the_best(optuna_store: OptunaStore) -> None:
    study = several(optuna_store, constraints={"latency_ms": "<= 20"})
    finish(study, 0.1, 0.9, misses={"latency_ms": 0.5})
    assert study.best_trials() == []
    finish(study, 0.4, 0.5, misses={"latency_ms": -0.5})
    assert [trial.number for trial in study.best_trials()] == [1]
    assert [(trial.is_feasible, trial.constraints) for trial in study.trials()] == [
        (False, {"latency_ms": 0.5}),
        (True, {"latency_ms": -0.5}),
    ]
    assert [trial.number for trial in study.optuna_study.best_trials] == [1]


def test_of_one_objective_the_best_is_the_best_feasible_one(optuna_store: OptunaStore) -> None:
    study = opened(optuna_store, constraints={"latency_ms": "<= 20"})
    for value, miss in ((0.1, 0.5), (0.3, 0.0), (0.2, -0.5)):
        started = study.start_trial(ordinal=0)
        study.finish_trial(started.trial_id, Outcome(ending=Ending.COMPLETED, value=value, misses={"latency_ms": miss}))
    best = study.best_trial()
    assert best is not None and (best.number, best.value) == (2, 0.2)


def test_the_pruner_goes_by_the_named_objective(optuna_store: OptunaStore) -> None:
    study = several(
        optuna_store, prune_on="accuracy", pruner={"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}
    )
    for accuracy in (0.8, 0.9):
        started = study.start_trial(ordinal=0)
        study.report_many(started.trial_id, [Report(step=0, value=accuracy)])
        study.finish_trial(started.trial_id, Outcome(ending=Ending.COMPLETED, values=(0.5, accuracy)))
    verdicts = {}
    for accuracy in (0.1, 0.95):
        started = study.start_trial(ordinal=0)
        study.report_many(started.trial_id, [Report(step=0, value=accuracy)])
        verdicts[accuracy] = study.should_prune(started.trial_id)
        ending = Ending.PRUNED if verdicts[accuracy] else Ending.COMPLETED
        values = () if verdicts[accuracy] else (0.5, accuracy)
        study.finish_trial(started.trial_id, Outcome(ending=ending, value=accuracy, values=values))
    assert verdicts == {0.1: True, 0.95: False}
    pruned = [trial for trial in study.trials() if trial.state is TrialState.PRUNED]
    assert [(trial.value, trial.values, len(trial.reports)) for trial in pruned] == [(None, (), 1)]


def test_without_a_named_objective_nothing_is_pruned(optuna_store: OptunaStore) -> None:
    study = several(optuna_store)
    started = study.start_trial(ordinal=0)
    study.report_many(started.trial_id, [Report(step=0, value=1e9)])
    assert study.should_prune(started.trial_id) is False


@pytest.mark.parametrize("sampler", ["tpe", "auto", "nsga2", "nsga3", "random", "qmc", "grid"])
def test_samplers_go_on_after_good_pruned_infeasible_and_failed_trials(optuna_store: OptunaStore, sampler: str) -> None:
    study = several(
        optuna_store,
        sampler={"name": sampler, **({"points": 3} if sampler == "grid" else {})},
        prune_on="loss",
        constraints={"latency_ms": "<= 20"},
        seed=1,
    )
    for ordinal in range(24):
        started = study.start_trial(ordinal=ordinal)
        study.report_many(started.trial_id, [Report(step=1, value=0.5)])
        outcome = Outcome(
            ending=Ending.COMPLETED,
            values=(ordinal / 24, abs(12 - ordinal)),
            misses={"latency_ms": ordinal / 12 - 1},
        )
        if ordinal % 5 == 3:
            outcome = Outcome(ending=Ending.PRUNED, misses={"latency_ms": 0.5})
        elif ordinal % 5 == 4:
            outcome = Outcome(ending=Ending.FAILED)
        study.finish_trial(started.trial_id, outcome)
    assert len({tuple(trial.params.items()) for trial in study.trials()}) > 20


def test_other_objectives_or_constraints_under_the_same_name_are_a_conflict(optuna_store: OptunaStore) -> None:
    several(optuna_store, constraints={"latency_ms": "<= 20"})
    with pytest.raises(StudyConflict, match="2 objectives"):
        opened(optuna_store)
    with pytest.raises(StudyConflict, match="minimize, maximize, not minimize, minimize"):
        opened(optuna_store, objectives={"loss": "minimize", "accuracy": "minimize"})
    with pytest.raises(StudyConflict, match="objectives loss, accuracy, not error, accuracy"):
        opened(
            optuna_store,
            objectives={"error": "minimize", "accuracy": "maximize"},
            constraints={"latency_ms": "<= 20"},
        )
    with pytest.raises(StudyConflict, match="latency_ms <= 20, not latency_ms <= 30"):
        several(optuna_store, constraints={"latency_ms": "<= 30"})


def test_a_warm_start_needs_the_same_objectives(optuna_store: OptunaStore) -> None:
    finish(several(optuna_store, name="first"), 0.5, 0.5)
    opened(optuna_store, name="other")
    tpe = SamplerSpec(name="tpe")
    spec = spec_of(name="digits", objectives=TWO, warm_start=["first"], sampler=tpe)
    optuna_store.check_warm_start(spec)
    optuna_store.create_study(spec.name, spec.direction, spec.scoring)
    assert optuna_store.open(spec).start_trial(ordinal=0).params
    with pytest.raises(StudyConflict, match="warm_start: study 'other' has direction minimize, and this one min"):
        optuna_store.check_warm_start(spec_of(name="digits", objectives=TWO, warm_start=["other"], sampler=tpe))


# --- The ledger


def test_an_attempt_ends_with_a_value_for_each_objective(ledger: Ledger) -> None:
    spec = StudySpec.from_json(
        {"name": "digits", "objective": "train:f", "objectives": TWO, "search_space": {"x": ["uniform", 0.0, 1e9]}}
    )
    optuna_id = ledger.access.store.create_study(spec.name, spec.direction, spec.scoring)
    record = ledger.studies.create(spec.name, spec.to_json(), queue="cpu", n_trials=4, optuna_study_id=optuna_id)
    done = Outcome(ending=Ending.COMPLETED, values=(0.5, -math.inf))
    pruned = Outcome(ending=Ending.PRUNED, value=0.7)
    for outcome in (done, pruned, Outcome(ending=Ending.FAILED)):
        lease = ledger.start(ledger.tickets(record)[len(ledger.access.store.view("digits").trials())], new=point())
        ledger.attempts.add_reports(lease, [Report(step=0, value=0.7)])
        ledger.finish(lease, outcome)
    theirs = optuna.load_study(study_name="digits", storage=ledger.access.store._storage)
    assert [(trial.state.name, trial.values) for trial in theirs.trials] == [
        ("COMPLETE", [0.5, -math.inf]),
        ("PRUNED", None),
        ("FAIL", None),
    ]
    assert LedgerQueries(ledger.database).progress_of(record).best_value is None
    assert [load.fault for load in ledger.snapshot.loads()] == [None]
    assert ledger.snapshot.loads()[0].directions == "MINIMIZE,MAXIMIZE"


def test_the_ledgers_best_value_is_of_a_feasible_trial(ledger: Ledger) -> None:
    record = ledger.study(3, constraints={"latency_ms": "<= 20"})
    ledger.control.dispatch(record.id, 3)
    for ticket, value, miss in zip(ledger.tickets(record), (0.1, 0.3, 0.2), (1.0, -1.0, 0.0), strict=True):
        outcome = Outcome(ending=Ending.COMPLETED, value=value, misses={"latency_ms": miss})
        ledger.finish(ledger.start(ticket), outcome)
    assert LedgerQueries(ledger.database).progress_of(record).best_value == 0.2
    assert ledger.snapshot.best_values({}, {record.id: 0.2}) == {record.id: 0.2}
    assert ledger.snapshot.since_best([], [record.id], at_most=9) == {record.id: 0}
    assert ledger.snapshot.succeeded([record.id]) == {record.id}
    best = ledger.access.store.view("digits").best()
    assert [(trial.number, trial.value, trial.is_feasible) for trial in best] == [(2, 0.2, True)]
