"""Several objectives and constraints on results: what may be written, and what a trial returns for it."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import pytest

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.goals import Bound, feasibility
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec, validate
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.attempt import run_attempt
from highnoon.shared.objective.defined_trial import DefinedTrial, given_trial
from highnoon.shared.objective.trial_events import WRONG_EVENT, outcome_of

TWO = {"loss": "minimize", "latency_ms": "minimize"}
WRITTEN = {"name": "digits", "objective": "train.py:f", "search_space": {"x": ["uniform", 0, 1]}}


class Silence:
    """A channel that nothing comes from."""

    def report(self, value: float, step: int) -> None: ...
    def report_params(self, total: int, active: int | None = None) -> None: ...
    def should_prune(self) -> bool:
        return False


def problems(**keys: Any) -> list[Problem]:
    return validate({**WRITTEN, **keys})[1]


def ended(returned: object, objectives: dict[str, str] = TWO, **constraints: str) -> Outcome:
    scoring = Scoring(objectives=objectives, constraints=constraints)
    return run_attempt(lambda params: returned, {"x": 0.5}, Silence(), scoring)


def test_a_study_keeps_its_objectives_and_constraints_in_their_order() -> None:
    written = {**WRITTEN, "objectives": {"b": "maximize", "a": "minimize"}, "constraints": {"c": "<=  2e1"}}
    spec = StudySpec.from_json(StudySpec.from_json(written).to_json())
    assert spec.scoring.directions == ("maximize", "minimize")
    assert list(spec.scoring.objectives) == ["b", "a"]
    assert spec.scoring.constraints == {"c": "<= 2e1"}
    other = StudySpec.from_json({**written, "objectives": {"a": "minimize", "b": "maximize"}})
    assert spec.distinct_from(other) == ["order of objectives"]
    assert spec.distinct_from(StudySpec.from_json({**written, "constraints": {"c": "<= 21"}})) == ["constraints"]


@pytest.mark.parametrize(
    ("keys", "key", "message", "hint"),
    [
        ({"objectives": ["loss"]}, "objectives", "must be a table of names", "objectives = {loss"),
        ({"objectives": {"loss": "minimize"}}, "objectives", "must be two or more", 'direction = "minimize"'),
        ({"objectives": {}}, "objectives", "must be two to 8", "Write for example"),
        ({"objectives": {**TWO, "latency_ms": "min"}}, "objectives.latency_ms", "minimize or maximize", "minimize."),
        ({"objectives": {**TWO, "": "minimize"}}, "objectives", "1 to 100 printable", ""),
        ({"objectives": TWO, "direction": "maximize"}, "direction", "is for one objective", "Leave it out"),
        ({"objectives": TWO, "sampler": "cmaes"}, "sampler", "cmaes is for one objective", "Write tpe,"),
        ({"objectives": TWO, "pruner": "wilcoxon"}, "pruner", "wilcoxon is for one objective", "Write median,"),
        ({"objectives": TWO, "pruner": "asha"}, "pruner", "which prune_on names", 'prune_on = "loss"'),
        ({"objectives": TWO, "prune_on": "los"}, "prune_on", "is none of the objectives", "Did you mean loss?"),
        ({"prune_on": "loss"}, "prune_on", "several objectives", "Leave it out"),
        ({"objectives": TWO, "target_value": 0.5}, "target_value", "is for one objective", "timeout"),
        ({"objectives": TWO, "target_value": 1}, "target_value", "is for one objective", "timeout"),
        ({"objectives": TWO, "early_stop": {"patience": 3}}, "early_stop", "is for one objective", "timeout"),
        ({"objectives": TWO, "param_budget": 9}, "param_budget", "is for one objective", 'params = "minimize"'),
        ({"objectives": TWO, "repeats": 3}, "repeats", "is for one objective", "mean"),
        ({"directions": ["minimize"]}, "directions", "is not a known key", "Write objectives."),
        ({"constraints": ["a <= b"]}, "constraints", "must be a table of metrics", "param_constraints"),
        ({"constraints": {"latency_ms": 20}}, "constraints.latency_ms", "a finite number", '"<= 20" or ">= 20"'),
        ({"constraints": {"latency_ms": "< 20"}}, "constraints.latency_ms", "a finite number", 'Write "<= 20".'),
        ({"constraints": {"latency_ms": "<= inf"}}, "constraints.latency_ms", "a finite number", "Write for example"),
        ({"constraints": {"highnoon:x": "<= 1"}}, "constraints", "1 to 100 printable", ""),
    ],
)
def test_each_mistake_is_answered_at_its_own_key(keys: dict[str, Any], key: str, message: str, hint: str) -> None:
    (found,) = problems(**keys)
    assert found.key == key
    assert message in found.message
    assert hint in found.hint if hint else found.hint == ""


def test_all_mistakes_are_answered_at_once() -> None:
    found = problems(
        objectives={"loss": "min", "size": "small"}, prune_on="lss", constraints={"a": "3", "b": "<"}, n_trials=0
    )
    keys = [problem.key for problem in found]
    assert keys == ["n_trials", "objectives.loss", "objectives.size", "constraints.a", "constraints.b"]


@pytest.mark.parametrize(
    ("returned", "values"),
    [
        ({"loss": 0.5, "latency_ms": 12}, (0.5, 12.0)),
        ({"latency_ms": 12, "loss": 0.5, "accuracy": 0.9}, (0.5, 12.0)),
        ((0.5, 12), (0.5, 12.0)),
        ([0.5, math.inf], (0.5, math.inf)),
    ],
)
def test_an_objective_returns_a_number_for_each(returned: object, values: tuple[float, ...]) -> None:
    outcome = ended(returned)
    assert (outcome.ending, outcome.value, outcome.values) == (Ending.COMPLETED, None, values)
    assert outcome.loss == 0.5
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_further_numbers_are_metrics_and_a_size_may_be_an_objective() -> None:
    outcome = ended({"loss": 0.5, "params": 1200, "accuracy": 0.9}, {"loss": "minimize", "params": "minimize"})
    assert (outcome.values, outcome.params_count, outcome.metrics) == ((0.5, 1200.0), 1200, {"accuracy": 0.9})


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (0.5, "the study has 2 objectives, so return"),
        ((0.5,), "or a tuple of 2 numbers in this order"),
        ({"loss": 0.5, "latency": 3}, "without latency_ms. Did you mean latency_ms?"),
        ({"loss": math.nan, "latency_ms": 3}, "returned nan as loss"),
        ((0.5, "fast"), "as latency_ms"),
    ],
)
def test_what_is_no_number_for_each_fails_the_trial(returned: object, message: str) -> None:
    outcome = ended(returned)
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "invalid_result")
    assert message in outcome.message


def test_a_miss_is_a_share_of_the_limit() -> None:
    bound = Bound.parse("<= 20")
    assert bound is not None
    assert [bound.miss(value) for value in (10.0, 20.0, 30.0)] == [-0.5, 0.0, 0.5]
    assert Bound.parse(">= -5e-1") == Bound(is_upper=False, limit=-0.5)
    assert Bound.parse(">= 0").miss(-3.0) == 3.0  # type: ignore[union-attr]
    assert math.isfinite(bound.miss(math.inf))
    assert Bound.parse("== 3") is Bound.parse("<= 1__.") is Bound.parse("<= nan") is None


def test_a_trial_that_lacks_a_metric_is_infeasible_and_says_so() -> None:
    outcome = ended({"loss": 0.5, "latency_ms": 30}, TWO, latency_ms="<= 20", params="<= 5e6")
    assert outcome.ending is Ending.COMPLETED
    assert outcome.misses == {"latency_ms": 0.5, "params": 1.0}
    assert not outcome.is_feasible
    assert outcome.message == (
        "infeasible: latency_ms is 30, and must be <= 20; "
        "infeasible: params was neither reported nor returned, and must be <= 5e6"
    )
    assert ended({"loss": 0.5, "latency_ms": 30}, TWO, latency_ms="<= 30").is_feasible


def test_a_trial_that_did_not_complete_may_still_get_the_metric() -> None:
    found = feasibility({"a": "<= 1", "b": "<= 1"}, {"a": 2.0}, is_complete=False)
    assert (found.misses, len(found.reasons)) == ({"a": 1.0}, 1)


@pytest.mark.parametrize(
    "forged",
    [
        {"values": [0.5]},
        {"values": [0.5, "nan"]},
        {"misses": {}},
        {"ending": "failed"},
        {"misses": {"latency_ms": "none"}},
    ],
)
def test_a_trial_process_cannot_send_another_number_of_values(forged: dict[str, Any]) -> None:
    scoring = Scoring(objectives=TWO, constraints={"latency_ms": "<= 20"})
    outcome = ended((0.5, 30.0), TWO, latency_ms="<= 20")
    assert outcome_of({"event": "result", "outcome": outcome.to_json()}, scoring).misses == {"latency_ms": 0.5}
    with pytest.raises(WRONG_EVENT):
        outcome_of({"event": "result", "outcome": {**outcome.to_json(), **forged}}, scoring)


def test_python_gets_the_same_answers() -> None:
    import highnoon as hn

    with pytest.raises(InvalidInput, match=r"must be two or more"):
        hn.HPOTrialManager("digits", objectives={"loss": "minimize"})


def test_a_constraint_that_the_objective_sets_by_itself_is_in_the_outcome() -> None:
    # Given an objective with Optuna's interface that sets two constraints, one of them twice
    class Answers:
        def set_constraint(self, key: str, value: float) -> None:
            pass

    def objective(trial: DefinedTrial) -> float:
        trial.set_constraint("size", 2.5)
        trial.set_constraint("size", -1.0)
        trial.set_constraint("speed", -3.0)
        return 0.1

    outcome = run_attempt(given_trial(objective, cast(Any, Answers()), 0), {}, Silence())

    # Then it counts as infeasible, in words too
    assert outcome.misses == {"size": 2.5, "speed": -3.0} and not outcome.is_feasible
    assert outcome.message == "infeasible: constraint size is 2.5, above 0"

    # And a bound of the study stands beside it
    scoring = Scoring(constraints={"loss": "<= 0.05"})
    both = run_attempt(given_trial(objective, cast(Any, Answers()), 0), {}, Silence(), scoring)
    assert both.misses == {"loss": pytest.approx(1.0), "size": 2.5, "speed": -3.0}

    # And so it is for the process that runs the trial, also where it is infinitely far
    sent = {"event": "result", "outcome": both.to_json()}
    assert outcome_of(sent, scoring).misses == both.misses

    def far(trial: DefinedTrial) -> float:
        trial.set_constraint("size", math.inf)
        return 0.1

    outcome = run_attempt(given_trial(far, cast(Any, Answers()), 0), {}, Silence())
    text = json.dumps(outcome.to_json(), allow_nan=False)
    assert outcome_of({"event": "result", "outcome": json.loads(text)}, Scoring()).misses["size"] > 1e300
    for wrong in ({"size": "far"}, {"highnoon:x": 1.0}, {"size": math.inf}):
        with pytest.raises(WRONG_EVENT):
            outcome_of({"event": "result", "outcome": {**outcome.to_json(), "misses": wrong}}, Scoring())
