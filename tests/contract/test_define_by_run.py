"""Define-by-run: an unchanged Optuna objective gets what Optuna's own Trial would give it, and all of it is kept."""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

import highnoon as hn
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.lease import LostAttempt
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.study import StudySpec, validate
from highnoon.shared.domain.trial import Outcome, Params
from highnoon.shared.objective.defined_trial import DefinedTrial, StudyFacts, takes_trial
from highnoon.shared.search.presampling import reseed, seed_of
from highnoon.shared.search.suggester import Suggester
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import StartedTrial


def objective(trial: optuna.Trial) -> float:
    """Branches, a loop, a helper, a name that is suggested twice, reports, attributes and a constraint."""
    kind = trial.suggest_categorical("kind", ["linear", "deep", (1, 2)])
    loss = trial.suggest_float("rate", 1e-4, 1e-1, log=True) + trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    if kind == "deep":
        loss += widths(trial)
    elif kind == (1, 2):
        loss += trial.suggest_float("share", 0.0, 1.0, step=0.25)
    trial.suggest_int("always", 3, 3)
    trial.set_user_attr("kinds", {"kind": str(kind)})
    trial.set_constraint("size", float(trial.suggest_int("size", 1, 64, log=True)) - 48)
    for step in range(4):
        trial.report(loss / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    assert trial.params["rate"] == trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    return loss


def widths(trial: optuna.Trial) -> float:
    layers = trial.suggest_int("layers", 1, 4)
    return sum(trial.suggest_int(f"units_{layer}", 8, 64, step=8) for layer in range(layers)) / 100


def by_optuna(sampler: type[BaseSampler], seed: int, count: int, **options: Any) -> list[optuna.trial.FrozenTrial]:
    """`study.optimize` with the sampler seeded for each trial, as ours are: by the study's seed and its number."""

    class Seeded(sampler):  # type: ignore[valid-type,misc]
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            reseed(self, seed_of(seed, trial.number))
            super().before_trial(study, trial)

    study = optuna.create_study(sampler=Seeded(**options), pruner=optuna.pruners.NopPruner())
    study.optimize(objective, n_trials=count)
    return study.get_trials()


@pytest.mark.parametrize(("name", "sampler"), [("random", RandomSampler), ("tpe", TPESampler)])
def test_the_same_parameters_as_optunas_optimize_trial_by_trial(name: str, sampler: type[BaseSampler]) -> None:
    expected = by_optuna(sampler, 5, 40)
    hpo = hn.HPOTrialManager("same", n_trials=40, sampler=name, pruner="none", seed=5)
    hpo.optimize(objective)
    found = hpo._results().optuna_study.get_trials()

    assert [trial.params for trial in found] == [
        {name: repr(value) if isinstance(value, tuple) else value for name, value in trial.params.items()}
        for trial in expected
    ]
    assert len({str(trial.params) for trial in found}) == 40
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.distributions.keys() == theirs.distributions.keys()
        assert ours.distributions["rate"] == theirs.distributions["rate"]
        assert (ours.values, ours.constraints, ours.intermediate_values, ours.user_attrs["kinds"]) == (
            theirs.values,
            theirs.constraints,
            theirs.intermediate_values,
            theirs.user_attrs["kinds"],
        )


def spec_of(sampler: str = "tpe", **more: Any) -> StudySpec:
    return StudySpec(name="d", objective="a:b", sampler=SamplerSpec(name=sampler), seed=3, **more)


def opened(store: OptunaStore, sampler: str = "tpe") -> OptunaStudy:
    spec = StudySpec.from_json(spec_of(sampler).to_json())
    assert spec.defines_by_run
    store.create_study("d", "minimize", space=spec.search_space)
    return store.open(spec)


def started(
    study: OptunaStudy, ordinal: int, before: LostAttempt | None = None
) -> tuple[StartedTrial, DefinedTrial, Callable[[], None]]:
    new = study.start_trial(ordinal=ordinal, before=before)
    definition = study.definition(trial_id=new.trial_id, number=new.number, ordinal=new.ordinal, fixed=new.params)
    return new, DefinedTrial(definition, new.number), definition.flush


def suggest_all(trial: DefinedTrial) -> Params:
    trial.suggest_float("x", 0, 1)
    if trial.suggest_categorical("deep", [True, False]):
        for layer in range(trial.suggest_int("layers", 1, 3)):
            trial.suggest_int(f"units_{layer}", 1, 100)
    return trial.params


def finished(study: OptunaStudy, new: StartedTrial, ending: Ending = Ending.COMPLETED) -> None:
    value = 1.0 if ending is Ending.COMPLETED else None
    study.finish_trial(new.trial_id, Outcome(ending=ending, value=value, loss=value, cause=str(ending)))


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_answers_are_in_the_running_trial_and_a_retry_gets_them_again(optuna_store: OptunaStore, sampler: str) -> None:
    study = opened(optuna_store, sampler)
    for ordinal in range(15):
        new, trial, _ = started(study, ordinal)
        params = suggest_all(trial)
        (running,) = study.trials([TrialState.RUNNING])
        assert running.params == params
        if ordinal % 3:
            finished(study, new)
            continue
        # Its process dies, and other trials end before it is tried again.
        finished(study, new, Ending.LOST)
        finished(study, started(study, 100 + ordinal)[0])
        again, retried, _ = started(study, ordinal, LostAttempt(params=params, trial_number=new.number))
        assert suggest_all(retried) == params
        finished(study, again)
        assert study.trial(again.number).params == params


def test_a_restarted_process_gives_the_same_answers_from_the_same_history(optuna_store: OptunaStore) -> None:
    study = opened(optuna_store)
    for ordinal in range(12):
        new, trial, _ = started(study, ordinal)
        suggest_all(trial)
        finished(study, new)
    lost, trial, _ = started(study, 12)
    expected = suggest_all(trial)
    finished(study, lost, Ending.LOST)
    # Nothing is known of the answers: another process has the study, and only the seed and the history decide.
    other = opened(optuna_store)
    new, retried, _ = started(other, 12)
    assert suggest_all(retried) == expected


def test_enqueued_values_are_suggested_where_they_are_asked_for(optuna_store: OptunaStore) -> None:
    study = opened(optuna_store)
    study.enqueue({"x": 0.125, "deep": True, "layers": 2, "never asked for": 3})
    new, trial, _ = started(study, 0)
    params = suggest_all(trial)
    assert params.keys() == {"x", "deep", "layers", "units_0", "units_1"}
    assert (params["x"], params["layers"]) == (0.125, 2)
    finished(study, new)
    assert study.trial(new.number).params == params
    with pytest.raises(InvalidInput, match=r"x: the choice \[1\] is not text"):
        study.enqueue({"x": [1]})  # type: ignore[dict-item]


def test_attributes_and_constraints_are_written_with_the_next_answer_or_at_the_end(optuna_store: OptunaStore) -> None:
    study = opened(optuna_store)
    new, trial, flush = started(study, 0)
    trial.set_user_attr("before", [1, "a"])
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("after", None)
    trial.set_constraint("size", 2)
    trial.set_constraint("size", 7)
    flush()
    finished(study, new)
    (kept,) = study.optuna_study.get_trials()
    assert kept.user_attrs["before"] == [1, "a"] and kept.user_attrs["after"] is None
    assert kept.constraints == {"size": 2.0} == trial.constraints
    assert study.best_trial() is None, "it is infeasible"


def test_attributes_may_be_numbers_and_arrays_of_numpy(optuna_store: OptunaStore) -> None:
    study = opened(optuna_store)
    new, trial, flush = started(study, 0)
    trial.set_user_attr("count", np.int64(3))
    trial.set_user_attr("found", {"classes": np.arange(3), "is_ok": np.bool_(True)})
    flush()
    finished(study, new)
    (kept,) = study.optuna_study.get_trials()
    assert kept.user_attrs["count"] == 3 and kept.user_attrs["found"] == {"classes": [0, 1, 2], "is_ok": True}


@pytest.mark.filterwarnings("ignore:suggest_:FutureWarning")
def test_deprecated_suggestions_give_what_optuna_gives() -> None:
    def of_older_names(trial: Any) -> float:
        trial.suggest_loguniform("log", 1e-5, 1)
        return float(trial.suggest_uniform("x", 0, 1) + trial.suggest_discrete_uniform("steps", 0, 1, 0.25))

    hpo = hn.HPOTrialManager("older", n_trials=2, sampler="random")
    hpo.optimize(of_older_names, show_progress=False)
    study = optuna.create_study()
    study.optimize(of_older_names, n_trials=1)
    assert hpo.study.trials[1].distributions == study.trials[0].distributions


def test_an_enqueued_value_out_of_range_runs_with_a_warning_as_in_optuna() -> None:
    def of_ranges(trial: Any) -> float:
        return float(trial.suggest_float("x", 0, 1) + trial.suggest_int("k", 1, 9, step=2))

    hpo = hn.HPOTrialManager("far", n_trials=2)
    study = optuna.create_study()
    point = {"x": 9.0, "k": 4, "z": 1}
    study.enqueue_trial(point)
    with pytest.warns(UserWarning, match="is out of range") as theirs:
        study.optimize(of_ranges, n_trials=1)
    hpo.enqueue(point)
    with pytest.warns(UserWarning, match=r"Fixed parameter .* ") as ours:
        hpo.optimize(of_ranges, show_progress=False)
    words = [str(one.message) for one in theirs if "out of range" in str(one.message)]
    assert [str(one.message) for one in ours] == [*words, "Fixed parameter z with value 1 was never suggested."]
    assert hpo.trials[0].params == {"x": 9.0, "k": 4} == study.trials[0].params


def test_a_finished_trial_does_not_fail_for_a_fixed_value_that_it_never_asked_for() -> None:
    hpo = hn.HPOTrialManager("strict", n_trials=1)
    hpo.enqueue({"x": 0.5, "z": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hpo.optimize(Machine(), show_progress=False)
    assert [trial.value for trial in hpo.trials] == [0.5]


def test_only_what_was_fixed_is_called_so_where_it_is_out_of_range() -> None:
    def narrows(trial: Any) -> float:
        first = trial.suggest_float("x", 0, 1)
        assert trial.suggest_float("x", 2, 3) == first
        return float(first)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hpo = hn.HPOTrialManager("narrows", n_trials=2)
        hpo.enqueue({"x": 0.5})
        hpo.optimize(narrows, show_progress=False)
        assert all(trial.value is not None for trial in hpo.trials)
        # And a sampler of a person's own that keeps to no bounds
        hpo = hn.HPOTrialManager("boundless", n_trials=1, sampler=Counting(), pruner="none")
        hpo.optimize(lambda trial: trial.suggest_float("x", 2, 3), show_progress=False)
    assert hpo.trials[0].params == {"x": 0.1}


class Scaled:
    """Its text has an address."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


def test_choices_that_are_objects_are_the_same_in_each_trial() -> None:
    def of_objects(trial: Any) -> float:
        kept.append([Scaled(1.0), Scaled(2.0)])
        chosen = trial.suggest_categorical("scale", kept[-1])
        return float(trial.suggest_categorical("scale", kept[-1]) is chosen) * chosen.factor

    kept: list[list[Scaled]] = []
    hpo = hn.HPOTrialManager("objects", n_trials=6, seed=1)
    hpo.optimize(of_objects, show_progress=False)
    assert {trial.value for trial in hpo.trials} == {1.0, 2.0}
    assert {trial.value for trial in hpo.trials if "choice 0" in str(trial.params["scale"])} == {1.0}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_another_domain_than_before_is_refused_as_by_optuna(optuna_store: OptunaStore, sampler: str) -> None:
    study = opened(optuna_store, sampler)
    foreign = study.optuna_study.ask()
    foreign.suggest_categorical("rate", ["slow", "fast"])
    new, trial, _ = started(study, 0)
    trial.suggest_float("rate", 0.1, 1)
    trial.suggest_categorical("kind", ["a", "b"])
    finished(study, new)
    _, trial, _ = started(study, 1)
    with pytest.raises(ValueError, match="Cannot set different log configuration to the same parameter name"):
        trial.suggest_float("rate", 0.1, 1, log=True)
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        trial.suggest_categorical("kind", ["a", "b", "c"])
    with pytest.raises(ValueError, match="Cannot set different distribution kind"):
        trial.suggest_int("kind", 1, 2)
    assert 0.2 <= trial.suggest_float("rate", 0.2, 3) <= 3, "bounds may move"
    assert trial.suggest_categorical("kind", ["a", "b"]) in ("a", "b")


def test_domains_of_earlier_trials_are_read_once_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(sampler=RandomSampler())
    suggester = Suggester(study, trial_id=7, number=7, seed=1, fixed={})
    read: list[bool] = []
    get_trials = suggester._study.get_trials
    monkeypatch.setattr(suggester._study, "get_trials", lambda **how: read.append(True) or get_trials(**how))
    for layer in range(30):
        suggester.suggest(f"units_{layer}", IntDistribution(8, 64))
    assert len(suggester.params) == 30 and len(read) == 1


def test_what_optuna_refuses_is_refused() -> None:
    study = opened(OptunaStore(None))
    _, trial, _ = started(study, 0)
    with pytest.raises(ValueError, match="low"):
        trial.suggest_float("x", 2, 1)
    with pytest.raises(ValueError, match=r"\S"):
        trial.suggest_float("x", 0, 1, log=True)
    with pytest.raises(ValueError, match=r"\S"):
        trial.suggest_categorical("c", [])
    trial.suggest_float("x", 0, 1)
    with pytest.raises(ValueError, match="different"):
        trial.suggest_int("x", 0, 1)
    with pytest.raises(TypeError, match=r"'a' cannot be stored as JSON: Object of type Machine"):
        trial.set_user_attr("a", {"of": [Machine()]})
    with pytest.raises(ValueError, match="highnoon:"):
        trial.set_user_attr("highnoon:loss", 3)
    for name in ("", "a\0", "x" * 201):
        with pytest.raises(ValueError, match=r"printable characters"):
            trial.suggest_float(name, 0, 1)
        with pytest.raises(ValueError, match=r"printable characters"):
            trial.set_user_attr(name, 1)
        with pytest.raises(ValueError, match=r"printable characters"):
            trial.set_constraint(name, 1)
    with pytest.raises(ValueError, match="longer than"):
        trial.set_user_attr("a", "x" * 600_000)
    assert trial.suggest_categorical("keys", {"a": 1}.keys()) == "a"  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="NaN"):
        trial.set_constraint("c", float("nan"))
    with pytest.raises(AttributeError, match=r"has no 'study': it holds no study(.|\n)*suggest_float"):
        trial.study  # noqa: B018
    assert trial.number == 0 and trial.datetime_start is not None and trial.relative_params == {}


def test_relative_parameters_come_from_the_intersection_of_what_was_seen() -> None:
    study = opened(OptunaStore(None))
    for ordinal in range(14):
        new, trial, _ = started(study, ordinal)
        suggest_all(trial)
        finished(study, new)
    _, trial, _ = started(study, 14)
    assert trial.relative_params.keys() == {"x", "deep"}
    assert trial.suggest_float("x", 0, 1) == trial.relative_params["x"]


class Machine:
    """As Optuna's users write an objective with data."""

    def __call__(self, trial: Any) -> float:
        return float(trial.suggest_float("x", 0, 1))


def test_callbacks_may_read_the_studys_name_and_direction() -> None:
    seen: list[Any] = []

    def of_trial(trial: Any) -> float:
        seen.append((trial.study.study_name, trial.study.direction, trial.study.directions))
        return 0.0

    hn.HPOTrialManager("named", n_trials=1, direction="maximize").optimize(of_trial)
    with pytest.raises(AttributeError, match=r"trial\.study has no 'trials' on HighNoon.*study_name, direction"):
        StudyFacts(study_name="named", direction_names=("maximize",)).trials  # noqa: B018
    assert seen == [("named", optuna.study.StudyDirection.MAXIMIZE, [optuna.study.StudyDirection.MAXIMIZE])]


def test_an_objective_wants_a_trial_by_name_or_annotation() -> None:
    def by_annotation(t: optuna.Trial) -> float: ...  # type: ignore[empty-body]
    def by_text(t: optuna.trial.Trial, more: int = 3) -> float: ...  # type: ignore[empty-body]
    def of_params(params: dict[str, Any]) -> float: ...  # type: ignore[empty-body]

    assert takes_trial(objective) and takes_trial(by_annotation) and takes_trial(by_text) and takes_trial(Machine())
    assert not takes_trial(of_params) and not takes_trial(lambda: 0) and not takes_trial(dict)
    hpo = hn.HPOTrialManager("machine", n_trials=3)
    assert hpo.optimize(Machine()).keys() == {"x"}
    with pytest.raises(InvalidInput, match=r"search_space: needs at least one parameter.*argument trial"):
        hpo.optimize(of_params)


@pytest.mark.parametrize("sampler", ["grid", "brute_force", "qmc"])
def test_samplers_that_must_know_the_space_are_refused(sampler: str) -> None:
    spec, problems = validate({"name": "a", "objective": "a:b", "sampler": sampler})
    assert spec is None and problems[0].key == "search_space" and sampler in problems[0].message
    assert json.loads(json.dumps(spec_of().to_json()))["search_space"] is None


class Counting(RandomSampler):
    """Learns from each question, and holds what no copy can have."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.lock = 0, threading.Lock()

    def sample_independent(self, *_: Any) -> float:
        self.asked += 1
        return self.asked / 10


def test_a_given_sampler_keeps_its_seed_and_what_it_has_learnt() -> None:
    def points(sampler: BaseSampler) -> list[Params]:
        hpo = hn.HPOTrialManager("given", n_trials=14, sampler=sampler, pruner="none")
        hpo.optimize(suggest_two, show_progress=False)
        return [trial.params for trial in hpo.trials]

    def suggest_two(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 9) + trial.suggest_float("y", 0, 9)

    study = optuna.create_study(sampler=TPESampler(seed=42))
    study.optimize(suggest_two, n_trials=14)
    assert points(TPESampler(seed=42)) == [trial.params for trial in study.trials]
    assert [point["x"] for point in points(Counting())[:3]] == [0.1, 0.3, 0.5]


def test_with_a_seed_parallel_trials_of_a_given_sampler_do_not_share_its_random_state() -> None:
    def points(sampler: BaseSampler | None) -> list[Params]:
        store = OptunaStore(None)
        store.create_study("d", "minimize")
        study = store.open(spec_of("random"), sampler=sampler)
        return [suggest_all(trial) for _, trial, _ in [started(study, 0), started(study, 1)]]

    assert points(RandomSampler()) == points(None)


@pytest.mark.parametrize("unfit", [{"x": math.inf}, {"x": [1]}, {"x\0": 1.0}], ids=["inf", "list", "name"])
def test_an_enqueued_value_that_no_parameter_can_have_fails_its_trial(
    optuna_store: OptunaStore, unfit: dict[str, Any]
) -> None:
    study = opened(optuna_store)
    study.optuna_study.enqueue_trial(unfit)
    study.enqueue({"x": 0.125})
    assert started(study, 0)[0].params == {"x": 0.125}
    assert study.trial(0).state is TrialState.FAIL and "x" in study.trial(0).attrs["highnoon:cause"]
