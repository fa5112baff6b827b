"""Conditions, constraints and changes of the search space, with every sampler: what is active is run and learnt."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

import highnoon as hn
from highnoon.shared.domain.conditions import active_part
from highnoon.shared.domain.errors import InvalidInput, SpaceExhausted, StudyConflict
from highnoon.shared.domain.lease import LostAttempt
from highnoon.shared.domain.param import Bool, Categorical, Float, Int, SearchSpace
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy

SPACE = parse_space(
    {
        "optimizer": Categorical(["adam", "sgd"]),
        "rate": Float(1e-4, 1e-1, log=True),
        "momentum": Float(0, 1, when={"optimizer": "sgd"}),
        "nesterov": Bool(when={"optimizer": "sgd"}),
        "delay": Int(1, 4, when={"nesterov": True}),
        "beta": Float(0.5, 1, when={"optimizer": "adam"}),
    }
)
SAMPLERS = ["random", "tpe", "cmaes"]


def spec_of(sampler: str = "tpe", space: SearchSpace = SPACE, **more: Any) -> StudySpec:
    return StudySpec(name="c", objective="a:b", sampler=SamplerSpec(name=sampler), search_space=space, seed=3, **more)


def opened(store: OptunaStore, spec: StudySpec) -> OptunaStudy:
    store.create_study("c", "minimize", space=spec.search_space)
    return store.open(spec)


def loss_of(params: dict[str, Any]) -> float:
    """Best with sgd and a momentum near 0.9."""
    if params["optimizer"] == "sgd":
        return abs(float(params["momentum"]) - 0.9) + (0 if params["nesterov"] else 0.05)
    return 1.5 - float(params["beta"])


def run(study: OptunaStudy, count: int, first: int = 0) -> list[dict[str, Any]]:
    points = []
    for ordinal in range(first, first + count):
        started = study.start_trial(ordinal=ordinal)
        points.append(dict(started.params))
        loss = loss_of(points[-1])
        study.finish_trial(started.trial_id, Outcome(ending=Ending.COMPLETED, value=loss, loss=loss))
    return points


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_point_has_its_active_parameters_only(optuna_store: OptunaStore, sampler: str) -> None:
    study = opened(optuna_store, spec_of(sampler))
    points = run(study, 30)
    for point, trial in zip(points, study.optuna_study.get_trials(), strict=True):
        assert active_part(SPACE, point) == point == trial.params
        assert trial.distributions.keys() == point.keys()
        wanted = {"optimizer", "rate"} | ({"momentum", "nesterov"} if point["optimizer"] == "sgd" else {"beta"})
        assert point.keys() == wanted | ({"delay"} if point.get("nesterov") else set())
    assert {point["optimizer"] for point in points} == {"adam", "sgd"}
    assert study.param_importance().keys() == SPACE.keys()


def test_the_sampler_learns_within_a_branch() -> None:
    def best_momenta(sampler: str) -> list[float]:
        study = opened(OptunaStore(None), spec_of(sampler))
        late = run(study, 80)[-25:]
        return [abs(point["momentum"] - 0.9) for point in late if "momentum" in point]

    tpe, random = best_momenta("tpe"), best_momenta("random")
    assert len(tpe) >= 15, "the better branch is taken more often"
    assert sorted(tpe)[len(tpe) // 2] < 0.1 < sorted(random)[len(random) // 2]


def test_grid_visits_every_combination_of_active_parameters_once() -> None:
    space = parse_space({"a": Categorical(["x", "y"]), "b": Int(1, 3, when={"a": "x"}), "c": Bool(when={"b": 3})})
    seen: list[object] = []
    hpo = hn.HPOTrialManager("g", n_trials=20, sampler="grid")
    hpo.optimize(lambda params: seen.append(params) or 0.0, space)
    assert sorted(map(str, seen)) == sorted(
        map(
            str,
            [{"a": "y"}, {"a": "x", "b": 1}, {"a": "x", "b": 2}, *({"a": "x", "b": 3, "c": c} for c in (True, False))],
        )
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_point_that_breaks_a_constraint_is_never_run(sampler: str) -> None:
    seen: list[dict[str, Any]] = []
    space = {"a": hn.Float(0, 1), "b": hn.Float(0, 1), "width": hn.Int(1, 64), "heads": hn.Categorical([3, 5, 7])}
    hpo = hn.HPOTrialManager("p", n_trials=25, sampler=sampler, seed=1)
    hpo.optimize(
        lambda params: seen.append(params) or params["a"],  # type: ignore[func-returns-value]
        space,
        param_constraints=["a + b <= 0.4", "a <= b", "width % heads == 0"],
    )
    assert len(seen) == 25
    for point in seen:
        assert point["a"] + point["b"] <= 0.4 and point["a"] <= point["b"] and point["width"] % point["heads"] == 0


def test_a_space_without_an_allowed_point_is_refused_and_else_exhausted() -> None:
    spec = spec_of("random", parse_space({"a": Float(0, 1)}), param_constraints=["a > 1"])
    with pytest.raises(SpaceExhausted, match="no point was found that keeps a > 1, in 5,000 draws"):
        opened(OptunaStore(None), spec).start_trial(ordinal=0)
    hpo = hn.HPOTrialManager("p", n_trials=5)
    with pytest.raises(InvalidInput, match=r"optimize\(\):\n  param_constraints: no point was found that keeps it"):
        hpo.optimize(lambda params: 0.0, {"a": hn.Float(0, 1)}, param_constraints=["a > 1"])


def test_enqueued_points_are_completed_within_conditions_and_constraints(optuna_store: OptunaStore) -> None:
    study = opened(optuna_store, spec_of(param_constraints=["momentum >= rate"]))
    # Inactive values are left out, missing ones are sampled.
    study.enqueue({"optimizer": "adam", "momentum": 0.5, "beta": 0.75})
    study.enqueue({"nesterov": True})
    with pytest.raises(InvalidInput, match=r"the point does not keep momentum >= rate"):
        study.enqueue({"optimizer": "sgd", "momentum": 0.0, "rate": 0.01})
    # What another program enqueued and cannot be run is failed with the reason.
    study.optuna_study.enqueue_trial({"optimizer": "sgd", "momentum": 0.0, "rate": 0.01})
    first, second, third = run(study, 3)
    assert first.keys() == {"optimizer", "rate", "beta"} and first["beta"] == 0.75
    assert second.get("nesterov", True) is True
    failed = study.trials([TrialState.FAIL])
    assert [trial.number for trial in failed] == [2] and "does not keep momentum" in str(failed[0].attrs)
    assert third["optimizer"] == "adam" or third["momentum"] >= third["rate"]


def test_a_retry_has_the_same_point(optuna_store: OptunaStore) -> None:
    study = opened(optuna_store, spec_of())
    run(study, 12)
    lost = study.start_trial(ordinal=12)
    study.finish_trial(lost.trial_id, Outcome(ending=Ending.LOST, cause="lost"))
    again = study.start_trial(ordinal=12, before=LostAttempt(params=lost.params, trial_number=lost.number))
    assert again.params == lost.params


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_goes_on_in_a_changed_space_and_learns_from_what_it_had(
    optuna_store: OptunaStore, sampler: str
) -> None:
    run(opened(optuna_store, spec_of(sampler)), 20)
    changed = parse_space(
        {
            "optimizer": Categorical(["lion", "adam", "sgd"]),
            "momentum": Float(0.4, 1, when={"optimizer": "sgd"}),
            "nesterov": Bool(when={"optimizer": "sgd"}),
            "beta": Float(0.5, 1, when={"optimizer": ["adam", "lion"]}),
            "decay": Float(0, 1, default=0.0),
        }
    )
    study = opened(optuna_store, spec_of(sampler, changed))
    for point in run(study, 20, first=20):
        assert active_part(changed, point) == point and "decay" in point and "rate" not in point
        assert point.get("momentum", 1) >= 0.4
    assert {"decay", "rate", "momentum"} <= study.param_importance().keys()
    # And back again
    with pytest.raises(
        StudyConflict, match=r"(?s)optimizer was .*'lion'.*rate is new and has no default.*another name"
    ):
        opened(optuna_store, spec_of(sampler))


def test_a_retry_after_a_change_has_what_was_the_same_before() -> None:
    store = OptunaStore(None)
    study = opened(store, spec_of())
    run(study, 12)
    lost = study.start_trial(ordinal=12)
    study.finish_trial(lost.trial_id, Outcome(ending=Ending.LOST, cause="lost"))
    wider = parse_space({**{k: v for k, v in SPACE.items() if k != "rate"}, "decay": Float(0, 1, default=0.25)})
    again = opened(store, spec_of(space=wider))
    before = LostAttempt(params=lost.params, trial_number=lost.number)
    repeated = again.start_trial(ordinal=12, before=before).params
    assert repeated == {**{k: v for k, v in lost.params.items() if k != "rate"}, "decay": 0.25}


def test_cmaes_begins_anew_in_a_space_of_other_dimensions(recwarn: pytest.WarningsRecorder) -> None:
    def run_in(space: dict[str, Any], first: int) -> list[optuna.trial.FrozenTrial]:
        study = opened(store, spec_of("cmaes", parse_space(space)))
        for ordinal in range(first, first + 14):
            started = study.start_trial(ordinal=ordinal)
            loss = sum(float(str(value)) ** 2 for value in started.params.values())
            study.finish_trial(started.trial_id, Outcome(ending=Ending.COMPLETED, value=loss, loss=loss))
        return study.optuna_study.get_trials()[first:]

    store = OptunaStore(None)
    first = {"x": Float(-1, 1), "y": Float(-1, 1)}
    assert any("cma" in key for trial in run_in(first, 0) for key in trial.system_attrs)
    later = run_in({**first, "z": Float(-1, 1, default=0.0)}, 14)
    assert sum(any("cma" in key for key in trial.system_attrs) for trial in later) >= 10


def test_defaults_stand_for_what_earlier_trials_had() -> None:
    store = OptunaStore(None)
    run(opened(store, spec_of("tpe")), 20)
    wider = parse_space({**SPACE, "decay": Float(0, 1, default=0.25)})
    study = opened(store, spec_of("tpe", wider))
    seen: list[optuna.trial.FrozenTrial] = []

    class Watching(optuna.samplers.TPESampler):
        def sample_relative(self, study: optuna.Study, trial: Any, space: Any) -> dict[str, Any]:
            seen.extend(study.get_trials(deepcopy=False))
            return super().sample_relative(study, trial, space)

    study.optuna_study.sampler = Watching(group=True, multivariate=True)
    study.start_trial(ordinal=20)
    assert len(seen) >= 20 and all(trial.params["decay"] == 0.25 for trial in seen[:20])


def test_a_retry_whose_point_breaks_a_new_constraint_is_run_all_the_same(optuna_store: OptunaStore) -> None:
    # Given a lost attempt, and a space that has a constraint since and a parameter with a child
    small: dict[str, Any] = {"x": ["uniform", 0.0, 1.0]}
    first = opened(optuna_store, spec_of(space=parse_space(small)))
    lost = first.start_trial(ordinal=0)
    scale = {"type": "float", "low": 0.0, "high": 1.0, "when": {"augment": True}}
    larger = parse_space({**small, "augment": {"type": "bool", "default": True}, "scale": scale})
    study = opened(optuna_store, spec_of(space=larger, param_constraints=("x > 2",)))
    # Then no new point is found, and the retry has its old one, completed
    with pytest.raises(SpaceExhausted):
        study.choose(ordinal=1, waiting=None)
    before = LostAttempt(params=lost.params, trial_number=lost.number)
    again = study.choose(ordinal=0, waiting=None, before=before)
    assert {name: again.params[name] for name in ("x", "augment")} == {"x": lost.params["x"], "augment": True}
    assert "scale" in again.params
