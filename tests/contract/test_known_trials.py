"""TPE on a large study: a part of its trials, translated once, and the proposals as good as from all of them."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from highnoon.shared.domain.param import Float
from highnoon.shared.search.known_trials import NEWEST, KnownTrials
from highnoon.shared.search.presampling import earlier_trials, sample
from highnoon.shared.search.sampling_space import SamplingSpace

SPACE = SamplingSpace({"x": Float(0.0, 1.0)})
DOMAINS = {"x": FloatDistribution(0.0, 1.0)}


def ended(x: float, *, missed: bool = False, **more: Any) -> FrozenTrial:
    attrs = {"constraints:memory": 1.0} if missed else {}
    kinds = {"state": TrialState.COMPLETE, "value": (x - 0.3) ** 2, "system_attrs": attrs, **more}
    return create_trial(params={"x": x}, distributions=DOMAINS, **kinds)


@pytest.fixture
def large() -> optuna.Study:
    """The best and some that did not fit are the oldest."""
    study = optuna.create_study(sampler=TPESampler(seed=1))
    study.add_trials([ended(0.3), *(ended(0.9, missed=True) for _ in range(5))])
    study.add_trials([ended(0.5 + number / 4000) for number in range(1500)])
    study.add_trial(create_trial(state=TrialState.RUNNING, params={"x": 0.1}, distributions=DOMAINS))
    study.add_trial(ended(0.6))
    return study


def test_of_a_large_study_the_best_the_newest_what_did_not_fit_and_what_runs_are_seen(large: optuna.Study) -> None:
    trials = large.get_trials(deepcopy=False)
    known = KnownTrials(SPACE)
    seen = known.few(large, trials)
    numbers = [trial.number for trial in seen]
    assert numbers == sorted(set(numbers)) and NEWEST < len(seen) < NEWEST + 120
    assert {0, 1, 2, 3, 4, 5} < set(numbers) and set(numbers[-NEWEST:]) <= {trial.number for trial in trials[-NEWEST:]}
    assert trials[-2] in seen, "it runs"
    # The same again, and with what has ended since
    large.add_trial(ended(0.301))
    newer = known.few(large, large.get_trials(deepcopy=False))
    assert newer[-1].params == {"x": 0.301} and len(known.all(large, large.get_trials(deepcopy=False))) == 1509


def test_of_a_large_warm_start_as_few_are_seen_as_of_a_large_study() -> None:
    earlier = [ended(0.3), ended(0.9, missed=True), *(ended(0.5 + number / 10_000) for number in range(3000))]
    study = optuna.create_study(sampler=TPESampler(seed=1))
    study.add_trials([ended(0.31), ended(0.7)])
    known = KnownTrials(SPACE, earlier_trials(SPACE, earlier))
    seen = known.few(study, study.get_trials(deepcopy=False))
    assert NEWEST < len(seen) < NEWEST + 120
    assert [trial.params["x"] for trial in seen[:2]] == [0.3, 0.9], "the best, and what did not fit"
    assert [trial.params["x"] for trial in seen[-2:]] == [0.31, 0.7], "the study's own are the newest"
    assert _split_trials(study, seen, 1)[0] == [seen[0]]
    assert len(known.all(study, study.get_trials(deepcopy=False))) == 3004


def test_a_small_study_is_seen_whole() -> None:
    study = optuna.create_study(sampler=TPESampler(seed=1))
    study.add_trials([ended(number / 100) for number in range(100)])
    assert KnownTrials(SPACE).few(study, study.get_trials()) == study.get_trials()


def test_the_good_trials_of_a_large_study_are_those_of_the_whole_study(large: optuna.Study) -> None:
    trials = large.get_trials(deepcopy=False)
    seen = KnownTrials(SPACE).few(large, trials)
    assert [_split_trials(large, some, 25)[0] for some in (seen, trials)] == [_split_trials(large, trials, 25)[0]] * 2
    # And a proposal is made of them
    proposed = [float(str(sample(large, SPACE, seed=seed, fixed={}).params["x"])) for seed in range(20)]
    assert sum(x < 0.52 for x in proposed) > 15
