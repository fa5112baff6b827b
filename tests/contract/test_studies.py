"""The contract of studies, in memory, on SQLite and on PostgreSQL: created, sampled, reported to, finished and read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback

from highnoon.shared.domain.errors import InvalidInput, InvariantBroken, StudyConflict, UnknownStudy, UserInputError
from highnoon.shared.domain.param import Categorical, Float, Int, SearchSpace
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import CAUSE, ENDING, MESSAGE, OPTUNA_STATE, TRACEBACK, Ending, TrialState
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import FreeOrdinal
from highnoon.shared.store.trial_results import ACTIVE_PARAMS, LOSS, PARAMS, SCORE
from tests.contract.digits import POINT, SPACE, before, completed, failed, spec_of
from tests.ledger import Ledger

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def store(optuna_store: OptunaStore) -> OptunaStore:
    optuna_store.create_study("digits", "minimize")
    return optuna_store


@pytest.fixture
def study(store: OptunaStore) -> OptunaStudy:
    return store.open(spec_of())


# --- Studies


def test_a_study_is_created_once_and_kept(store: OptunaStore) -> None:
    study = store.open(spec_of())
    study.start_trial(ordinal=0)
    store.create_study("digits", "minimize")
    assert len(store.open(spec_of()).trials()) == 1
    assert store.exists("digits") and not store.exists("letters")


def test_a_study_that_is_not_there_is_unknown(store: OptunaStore) -> None:
    with pytest.raises(UnknownStudy, match="letters"):
        store.open(spec_of(name="letters"))


def test_another_direction_is_a_conflict(store: OptunaStore) -> None:
    with pytest.raises(StudyConflict, match="minimize, not maximize"):
        store.create_study("digits", "maximize")
    with pytest.raises(StudyConflict, match="minimize, not maximize"):
        store.open(spec_of(direction="maximize"))


def test_a_study_with_several_objectives_is_called_so(optuna_store: OptunaStore) -> None:
    optuna.create_study(storage=optuna_store._storage, study_name="goals", directions=["minimize", "maximize"])
    with pytest.raises(StudyConflict, match=r"study 'goals' has 2 objectives \(minimize and maximize\)"):
        optuna_store.create_study("goals", "minimize")


OTHER_DOMAINS: dict[str, SearchSpace] = {
    "choices": {"optimizer": Categorical(choices=("adam", "sgd"))},
    "kind": {"width": Float(low=0.0, high=1.0)},
    "scale": {"rate": Float(low=1e-5, high=1e-1)},
}


@pytest.mark.parametrize("other", OTHER_DOMAINS.values(), ids=OTHER_DOMAINS)
def test_other_choices_kinds_or_scales_are_a_conflict(
    study: OptunaStudy, store: OptunaStore, other: SearchSpace
) -> None:
    store.create_study("digits", "minimize", space={**SPACE, **other})
    study.finish_trial(study.start_trial(ordinal=0).trial_id, completed())
    with pytest.raises(StudyConflict, match=next(iter(other))):
        store.create_study("digits", "minimize", space={**SPACE, **other})


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_trials_of_another_program_with_other_domains_stop_nothing(store: OptunaStore, sampler: str) -> None:
    # Given a study of ours, and a script whose trials have numbers for texts, other choices, scales and parameters
    study = store.open(spec_of(sampler=SamplerSpec(name=sampler)))
    foreign = store.open(spec_of()).optuna_study

    def join(number: int) -> None:
        trial = foreign.ask()
        trial.suggest_categorical("rate", ["slow", "fast"])
        trial.suggest_float("width", 0.0, 1.0)
        trial.suggest_categorical("optimizer", ["rmsprop", "lion"])
        trial.suggest_int("momentum", 1, 9)
        if number % 3:
            foreign.tell(trial, float(number))

    for number in range(15):
        join(number)
        started = study.start_trial(ordinal=number)
        assert started.params.keys() == SPACE.keys()
        study.finish_trial(started.trial_id, completed(float(number)))

    # Then opening or submitting the study again is not refused either
    store.create_study("digits", "minimize", space=SPACE)
    join(16)
    store.create_study("digits", "minimize", space=SPACE)
    assert store.open(spec_of()).start_trial(ordinal=16).params.keys() == SPACE.keys()
    assert len(study.trials([TrialState.COMPLETE])) == 15 + 11


def test_a_study_of_another_program_goes_on_with_a_described_space(store: OptunaStore) -> None:
    store.create_study("theirs", "minimize")
    foreign = store.open(spec_of(name="theirs")).optuna_study
    foreign.tell(trial := foreign.ask(), trial.suggest_float("rate", 0.0, 1.0))
    store.create_study("theirs", "minimize", space=SPACE)
    assert store.open(spec_of(name="theirs")).start_trial(ordinal=0).params.keys() == SPACE.keys()


def test_another_range_or_parameter_is_none(study: OptunaStudy, store: OptunaStore) -> None:
    study.start_trial(ordinal=0)
    wider: SearchSpace = {**SPACE, "dropout": Float(low=0.0, high=0.9), "momentum": Float(low=0.0, high=1.0)}
    asked = store.open(spec_of(search_space=wider)).start_trial(ordinal=1)
    assert asked.params.keys() == wider.keys()


def test_a_study_deleted_in_the_middle_is_unknown(study: OptunaStudy, store: OptunaStore) -> None:
    asked = study.start_trial(ordinal=0)
    optuna.delete_study(study_name="digits", storage=store._storage)
    with pytest.raises(UnknownStudy):
        study.finish_trial(asked.trial_id, completed())
    with pytest.raises(UnknownStudy):
        study.start_trial(ordinal=0, before=before(POINT))


# --- Start


def test_started_trials_are_running_with_their_parameters(study: OptunaStudy) -> None:
    first, second = study.start_trial(ordinal=0), study.start_trial(ordinal=1)
    trials = study.trials()
    assert [trial.number for trial in trials] == [first.number, second.number] == [0, 1]
    assert [trial.params for trial in trials] == [first.params, second.params]
    assert {trial.state for trial in trials} == {TrialState.RUNNING}
    assert trials[0].attrs == {}
    assert trials[0].started_at is not None and trials[0].ended_at is None


def test_choosing_writes_nothing(study: OptunaStudy) -> None:
    study.start_trial(ordinal=0)
    before_it = study.optuna_study.get_trials()
    new = study.choose(ordinal=1, waiting=None)
    assert new.params.keys() == SPACE.keys() and new.waiting_trial_id is None
    assert study.optuna_study.get_trials() == before_it


def test_an_enqueued_trial_is_served_first(study: OptunaStudy) -> None:
    study.start_trial(ordinal=0)
    study.optuna_study.enqueue_trial(POINT, user_attrs={"who": "a person"})
    study.optuna_study.enqueue_trial({"width": 96, "no such parameter": 1})

    first, second, third = (study.start_trial(ordinal=n) for n in (1, 2, 3))

    assert (first.number, first.params) == (1, POINT)
    assert second.number == 2 and second.params["width"] == 96
    assert second.params.keys() == SPACE.keys(), "what was left open is sampled"
    assert third.number == 3
    trial = study.trial(1)
    assert trial.state is TrialState.RUNNING
    assert trial.attrs == {"who": "a person"}


@pytest.mark.parametrize("enqueued", [False, True])
def test_a_point_is_chosen_again_when_another_trial_has_begun_meanwhile(
    store: OptunaStore, study: OptunaStudy, enqueued: bool
) -> None:
    # Given a program that starts a trial whenever this one has counted, twice
    others = store.open(spec_of())
    if enqueued:
        study.optuna_study.enqueue_trial({"width": 96})
        study.optuna_study.enqueue_trial({"width": 96})

    def counted(tries: int) -> FreeOrdinal:
        begun = sum(trial.state is not TrialState.WAITING for trial in study.trials())
        if tries < 2:
            others.start_trial(ordinal=begun)
        return FreeOrdinal(ordinal=begun, begun=begun)

    # When this one starts a trial
    started = study.start_trial(ordinal=counted)

    # Then it has an ordinal of its own
    assert (started.number, started.ordinal) == (2, 2)
    assert [trial.state for trial in study.trials()] == [TrialState.RUNNING] * 3


def test_an_enqueued_value_out_of_bounds_is_kept_as_by_optuna(study: OptunaStudy) -> None:
    study.optuna_study.enqueue_trial({**POINT, "dropout": 0.75})
    assert study.start_trial(ordinal=0).params["dropout"] == 0.75


def test_an_enqueued_trial_that_cannot_be_run_fails_and_stops_nobody(study: OptunaStudy) -> None:
    study.optuna_study.enqueue_trial({**POINT, "optimizer": "no such choice"})
    study.optuna_study.enqueue_trial(POINT)
    assert study.start_trial(ordinal=0).params == POINT
    unfit = study.trial(0)
    assert unfit.state is TrialState.FAIL
    assert "no such choice" in unfit.attrs[CAUSE]


@pytest.mark.parametrize(
    "unfit",
    [{"width": math.inf}, {"rate": -math.inf}, {"width": 10**400}, {"dropout": 10**400}],
    ids=["inf", "-inf", "large int", "large float"],
)
def test_an_enqueued_number_that_no_database_holds_fails_its_trial(study: OptunaStudy, unfit: dict[str, Any]) -> None:
    study.optuna_study.enqueue_trial(unfit)
    study.optuna_study.enqueue_trial(POINT)
    assert study.start_trial(ordinal=0).params == POINT
    assert study.trial(0).state is TrialState.FAIL
    ((name, _),) = unfit.items()
    assert name in study.trial(0).attrs[CAUSE]
    with pytest.raises(InvalidInput, match=name):
        study.enqueue(unfit)


def test_a_clone_by_optunas_retry_callback_is_served_whole(study: OptunaStudy) -> None:
    # Given a trial of ours that an ordinary script failed and cloned, attributes and all
    asked = study.start_trial(ordinal=0)
    study.finish_trial(asked.trial_id, Outcome(ending=Ending.FAILED, cause="exception", message="bad luck"))
    RetryHeartbeatStaleTrialCallback()(study.optuna_study, study.optuna_study.get_trials()[0])

    again = study.start_trial(ordinal=1)

    assert again.params == asked.params
    study.finish_trial(again.trial_id, completed())
    assert study.trial(again.number).attrs[ENDING] == "completed"


def test_points_are_enqueued_before_and_after_choices_were_added(optuna_store: OptunaStore) -> None:
    for choices in (("a", "b"), ("a", "b", "c")):
        space: SearchSpace = {"kind": Categorical(choices=choices)}
        optuna_store.create_study("digits", "minimize", space=space)
        study = optuna_store.open(spec_of(search_space=space))
        study.enqueue({"kind": choices[-1]})
        started = study.start_trial(ordinal=0)
        assert started.params == {"kind": choices[-1]}
        study.finish_trial(started.trial_id, completed(1.0))
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 2


def test_a_grids_tickets_keep_their_points_and_later_ones_serve_what_was_enqueued(store: OptunaStore) -> None:
    space: SearchSpace = {"width": Int(low=1, high=2)}
    study = store.open(spec_of(search_space=space, sampler=SamplerSpec(name="grid")))
    study.optuna_study.enqueue_trial({"width": 2})
    assert [study.start_trial(ordinal=ordinal).params["width"] for ordinal in (0, 1)] == [1, 2]
    assert study.start_trial(ordinal=2).number == 0


def test_a_retry_has_the_same_point_and_its_whole_history(study: OptunaStudy) -> None:
    first = study.start_trial(ordinal=0)
    study.report_many(first.trial_id, [Report(step=0, value=0.5)])
    study.finish_trial(first.trial_id, failed("lost"))
    second = study.start_trial(ordinal=0, before=before(first.params, first.number))
    study.finish_trial(second.trial_id, failed("lost"))
    third = study.start_trial(ordinal=0, before=before(second.params, second.number))

    assert first.params == second.params == third.params
    frozen = study.optuna_study.get_trials()[third.number]
    assert RetryHeartbeatStaleTrialCallback.retried_trial_number(frozen) == first.number
    assert RetryHeartbeatStaleTrialCallback.retry_history(frozen) == [first.number, second.number]
    assert frozen.intermediate_values == {}, "a new attempt starts without reports"
    assert study.trial(second.number).attrs == {ENDING: "failed", CAUSE: "lost"}


def test_a_retry_of_a_trial_that_is_not_there_is_a_new_trial(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0, before=before({**POINT, "left over": 1}, 99))
    assert asked.params == POINT
    assert study.optuna_study.get_trials()[0].system_attrs == {}


# --- Report and prune


def test_the_first_report_of_a_step_stays(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    study.report_many(asked.trial_id, [Report(step=1, value=0.5)])
    study.report_many(asked.trial_id, [Report(step=1, value=0.9)])
    study.report_many(
        asked.trial_id,
        [
            Report(step=0, value=1.0),
            Report(step=2, value=math.inf),
            Report(step=2, value=0.1),
            Report(step=1, value=7.0),
        ],
    )
    study.report_many(asked.trial_id, [])
    assert study.trial(0).reports == (
        Report(step=0, value=1.0),
        Report(step=1, value=0.5),
        Report(step=2, value=math.inf),
    )


def test_a_trial_that_has_ended_takes_no_report(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    study.finish_trial(asked.trial_id, failed("lost"))
    study.report_many(asked.trial_id, [Report(step=0, value=0.5)])
    assert study.trial(0).reports == ()
    assert study.should_prune(asked.trial_id) is False


def test_prunes_what_is_worse_than_the_others(store: OptunaStore) -> None:
    study = store.open(spec_of(pruner=PrunerSpec(name="median", options={"n_startup_trials": 3})))
    for ordinal in range(3):
        asked = study.start_trial(ordinal=ordinal)
        study.report_many(asked.trial_id, [Report(step=0, value=0.5)])
        study.finish_trial(asked.trial_id, completed())
    good, bad = study.start_trial(ordinal=3), study.start_trial(ordinal=4)
    study.report_many(good.trial_id, [Report(step=0, value=0.4)])
    study.report_many(bad.trial_id, [Report(step=0, value=0.6)])
    assert study.should_prune(good.trial_id) is False
    assert study.should_prune(bad.trial_id) is True


def test_hyperband_notes_its_rungs_with_the_trial(store: OptunaStore) -> None:
    study = store.open(spec_of(pruner=PrunerSpec(name="hyperband", options={"max_resource": 4})))
    asked = study.start_trial(ordinal=0)
    study.report_many(asked.trial_id, [Report(step=3, value=0.5)])
    study.should_prune(asked.trial_id)
    (frozen,) = study.optuna_study.get_trials()
    assert "completed_rung_0" in frozen.system_attrs
    study.finish_trial(asked.trial_id, failed("lost"))
    again = study.start_trial(ordinal=0, before=before(asked.params, 0))
    assert "completed_rung_0" not in study.optuna_study.get_trials()[again.number].system_attrs


# --- Finish


@pytest.mark.parametrize("ending", list(Ending))
def test_each_ending_is_stored_as_its_state(study: OptunaStudy, ending: Ending) -> None:
    asked = study.start_trial(ordinal=0)
    value = 0.25 if ending is Ending.COMPLETED else None
    outcome = Outcome(ending=ending, value=value, cause="because", message="in words", traceback="x" * 20_000)

    assert study.finish_trial(asked.trial_id, outcome) is True

    trial = study.trial(0)
    assert (trial.state, trial.value) == (OPTUNA_STATE[ending], value)
    assert (trial.attrs[ENDING], trial.attrs[CAUSE], trial.attrs[MESSAGE]) == (ending, "because", "in words")
    assert 0 < len(trial.attrs[TRACEBACK]) <= 8_192
    assert trial.duration_s is not None and trial.duration_s >= 0


@pytest.mark.parametrize(
    ("given", "last", "value"),
    [(0.1, 0.5, 0.1), (None, 0.5, 0.5), (None, math.inf, math.inf), (None, math.nan, None), (None, None, None)],
)
def test_a_pruned_trial_has_the_given_value_or_its_last_report(
    study: OptunaStudy, given: float | None, last: float | None, value: float | None
) -> None:
    asked = study.start_trial(ordinal=0)
    study.report_many(asked.trial_id, [Report(step=0, value=7.0)])
    if last is not None:
        study.report_many(asked.trial_id, [Report(step=1, value=last)])
    else:
        value = 7.0
    outcome = Outcome(ending=Ending.PRUNED, value=given)
    assert study.finish_trial(asked.trial_id, outcome) is True
    assert study.finish_trial(asked.trial_id, outcome) is True
    assert study.trial(0).value == value


def test_finishing_with_the_same_outcome_twice_changes_nothing(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    study.finish_trial(asked.trial_id, completed(0.1))
    before = study.trial(0)
    assert study.finish_trial(asked.trial_id, completed(0.1)) is True
    assert study.trial(0) == before


@pytest.mark.parametrize(
    "other", [completed(0.2), Outcome(ending=Ending.FAILED), Outcome(ending=Ending.PRUNED, value=0.1)]
)
def test_finishing_with_another_outcome_is_a_broken_invariant(study: OptunaStudy, other: Outcome) -> None:
    asked = study.start_trial(ordinal=0)
    study.finish_trial(asked.trial_id, completed(0.1))
    before = study.trial(0)
    with pytest.raises(InvariantBroken, match="COMPLETE"):
        study.finish_trial(asked.trial_id, other)
    assert study.trial(0) == before


def test_what_somebody_failed_stays_failed(study: OptunaStudy, caplog: pytest.LogCaptureFixture) -> None:
    asked = study.start_trial(ordinal=0)
    study.optuna_study.tell(asked.number, state=optuna.trial.TrialState.FAIL)
    assert study.finish_trial(asked.trial_id, completed()) is False
    assert study.finish_trial(asked.trial_id, Outcome(ending=Ending.LOST)) is True
    assert "outcome_refused" in caplog.text
    trial = study.trial(0)
    assert (trial.state, trial.value, trial.attrs) == (TrialState.FAIL, None, {})


@pytest.mark.parametrize("value", [None, math.nan])
def test_completed_without_a_number_is_a_broken_invariant(study: OptunaStudy, value: float | None) -> None:
    asked = study.start_trial(ordinal=0)
    with pytest.raises(InvariantBroken):
        study.finish_trial(asked.trial_id, Outcome(ending=Ending.COMPLETED, value=value))
    assert study.trial(0).state is TrialState.RUNNING


def test_what_did_not_fit_into_memory_is_infeasible(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    study.report_many(asked.trial_id, [Report(step=0, value=0.001)])
    study.finish_trial(asked.trial_id, Outcome(ending=Ending.STOPPED, cause="out_of_memory"))
    (frozen,) = study.optuna_study.get_trials()
    assert frozen.constraints == {"memory": 1.0}
    assert frozen.state is optuna.trial.TrialState.PRUNED
    assert study.best_trial() is None


def test_a_stop_stores_by_how_much_it_missed(study: OptunaStudy) -> None:
    for constraint, cause in ((0.5, "param_budget"), (2.0, "memory_limit"), (-0.1, "swap"), (0.2, "stopped")):
        asked = study.start_trial(ordinal=0)
        study.finish_trial(asked.trial_id, Outcome(ending=Ending.STOPPED, cause=cause, constraint=constraint))
    found = [frozen.constraints for frozen in study.optuna_study.get_trials()]
    assert found == [{"param_budget": 0.5}, {"memory": 2.0}, {"memory": 0.001}, {"stopped": 0.2}]


def test_loss_size_and_score_are_kept_beside_the_value(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    outcome = Outcome(ending=Ending.COMPLETED, value=0.105, loss=0.1, params_count=500, active_params=200)
    study.finish_trial(asked.trial_id, outcome)
    (frozen,) = study.optuna_study.get_trials()
    attrs = {key: value for key, value in frozen.user_attrs.items() if key != ENDING}
    assert attrs == {LOSS: 0.1, PARAMS: 500, ACTIVE_PARAMS: 200, SCORE: 0.105}
    trial = study.trial(0)
    assert (trial.value, trial.loss, trial.params_count, trial.active_params) == (0.105, 0.1, 500, 200)


def test_a_trial_without_a_size_has_its_value_as_loss(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    study.finish_trial(asked.trial_id, completed(0.25))
    trial = study.trial(0)
    assert (trial.loss, trial.params_count) == (0.25, None)
    assert set(trial.attrs) == {ENDING}


def test_an_infinite_loss_is_kept_as_text_for_json_and_read_as_a_number(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    study.finish_trial(asked.trial_id, Outcome(ending=Ending.COMPLETED, value=math.inf, loss=math.inf, params_count=5))
    trial = study.trial(0)
    assert trial.loss == math.inf
    json.dumps(dict(trial.attrs), allow_nan=False)


def test_a_study_keeps_the_scale_of_its_scores(optuna_store: OptunaStore) -> None:
    terms = Scoring(param_budget=1000, lambda_efficiency=0.2)
    optuna_store.create_study("digits", "minimize", terms)
    optuna_store.create_study("digits", "minimize", replace(terms, param_budget_hard=True))
    with pytest.raises(StudyConflict, match=r"has param_budget 1000 and lambda_efficiency 0\.2, not no param_budget"):
        optuna_store.create_study("digits", "minimize")
    with pytest.raises(StudyConflict, match=r"not param_budget 2000 and lambda_efficiency 0\.2"):
        optuna_store.create_study("digits", "minimize", replace(terms, param_budget=2000))


def test_an_unscored_study_takes_a_scale_only_before_its_first_trial(optuna_store: OptunaStore) -> None:
    terms = Scoring(param_budget=1000)
    optuna_store.create_study("digits", "minimize")
    optuna_store.create_study("digits", "minimize", terms)
    optuna_store.create_study("letters", "minimize")
    optuna_store.open(spec_of(name="letters")).start_trial(ordinal=0)
    with pytest.raises(StudyConflict, match="has no param_budget and no constraints, not param_budget 1000"):
        optuna_store.create_study("letters", "minimize", terms)


def test_a_constraint_leads_the_sampler_to_what_fits_before_anything_did() -> None:
    """2 % of the space are feasible, and the loss lures away from them: being pruned alone teaches the opposite."""

    def feasible(ending: Ending) -> int:
        with OptunaStore(None) as store:
            store.create_study("digits", "minimize")
            spec = spec_of(search_space={"size": Int(low=1, high=1000)}, sampler=SamplerSpec(name="tpe"), seed=1)
            study = store.open(spec)
            for ordinal in range(40):
                asked = study.start_trial(ordinal=ordinal)
                size = int(str(asked.params["size"]))
                study.report_many(asked.trial_id, [Report(step=0, value=1 / size)])
                missed = Outcome(ending=ending, cause="param_budget", constraint=size / 20 - 1)
                study.finish_trial(asked.trial_id, missed if size > 20 else completed(1 / size))
            return len(study.trials([TrialState.COMPLETE]))

    assert feasible(Ending.STOPPED) >= 4
    assert feasible(Ending.PRUNED) == 0


# --- Read


def test_reads_trials_by_state_and_number(study: OptunaStudy) -> None:
    done, _running = study.start_trial(ordinal=0), study.start_trial(ordinal=1)
    study.finish_trial(done.trial_id, completed())
    study.optuna_study.enqueue_trial(POINT)
    assert [trial.number for trial in study.trials([TrialState.RUNNING, TrialState.WAITING])] == [1, 2]
    assert study.trial(0).started_at.tzinfo is not None  # type: ignore[union-attr]
    with pytest.raises(UserInputError, match="no trial 7"):
        study.trial(7)


def test_what_is_read_is_the_readers_own(study: OptunaStudy) -> None:
    asked = study.start_trial(ordinal=0)
    study.finish_trial(asked.trial_id, completed())
    study.trials()[0].params.clear()
    assert study.trials()[0].params == asked.params


@pytest.mark.parametrize(("direction", "best"), [("minimize", 1), ("maximize", 2)])
def test_the_best_trial(store: OptunaStore, direction: str, best: int) -> None:
    store.create_study(direction, direction)
    study = store.open(spec_of(name=direction, direction=direction))
    assert study.best_trial() is None
    for ordinal, value in enumerate([2.0, 1.0, 3.0]):
        study.finish_trial(study.start_trial(ordinal=ordinal).trial_id, completed(value))
    found = study.best_trial()
    assert found is not None and found.number == best


@pytest.mark.filterwarnings("error")
def test_importance_needs_trials(store: OptunaStore, caplog: pytest.LogCaptureFixture) -> None:
    study = store.open(spec_of(seed=1))
    assert study.param_importance() == {}
    for ordinal in range(40):
        asked = study.start_trial(ordinal=ordinal)
        study.finish_trial(asked.trial_id, completed(float(asked.params["dropout"])))  # type: ignore[arg-type]
        if ordinal == 0:
            assert study.param_importance() == pytest.approx(dict.fromkeys(SPACE, 0.25))
            (line,) = caplog.messages
            assert line.endswith("too few different values to say which parameter mattered: all shares are equal")
    importance = study.param_importance()
    assert next(iter(importance)) == "dropout"
    assert sum(importance.values()) == pytest.approx(1.0)


def test_what_was_enqueued_ends_with_a_cancelled_study(ledger: Ledger) -> None:
    study = ledger.study(2)
    ledger.optuna().enqueue_trial({"x": 1.0})
    assert ledger.studies.cancel(study.id)
    (trial,) = ledger.optuna().trials
    trial._validate()
    assert (trial.state.name, trial.user_attrs) == ("FAIL", {"highnoon:cause": "cancelled"})
