"""Optuna's own suites of samplers, run through our path: every point is sampled ahead, as a worker does it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import FrozenTrial

from highnoon.shared.domain.param import Categorical, Float, Int, Param
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.search.presampling import sample
from highnoon.shared.search.samplers import build_sampler
from highnoon.shared.search.sampling_space import SamplingSpace

pytestmark = pytest.mark.filterwarnings("ignore")


class Presampled(BaseSampler):
    """What `presampling` gives for a sampler of ours, as Optuna's suites ask for it."""

    def __init__(self, spec: SamplerSpec) -> None:
        self._sampler = build_sampler(spec, {}, 1)
        self._seed = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The sampler's own search space."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole point, sampled ahead."""
        return self._sampled(study, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A point of one parameter, sampled ahead."""
        return self._sampled(study, {param_name: param_distribution})[param_name]

    def _sampled(self, study: Study, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        if not space:
            return {}
        self._seed += 1
        ours = optuna.Study(study_name=study.study_name, storage=study._storage, sampler=self._sampler)
        params = {name: _param(domain) for name, domain in space.items()}
        return dict(sample(ours, SamplingSpace(params), seed=self._seed, ordinal=self._seed, fixed={}).params)


def _param(domain: BaseDistribution) -> Param:
    """Ours for Optuna's."""
    match domain:
        case FloatDistribution():
            return Float(low=domain.low, high=domain.high, step=domain.step, log=domain.log)
        case IntDistribution():
            return Int(low=domain.low, high=domain.high, step=domain.step, log=domain.log)
        case _:
            assert isinstance(domain, CategoricalDistribution)
            return Categorical(choices=tuple(domain.choices))


SPECS = [
    pytest.param(SamplerSpec(name="auto", options={"n_startup_trials": 2}), id="auto"),
    pytest.param(SamplerSpec(name="tpe", options={"n_startup_trials": 2}), id="tpe"),
    pytest.param(SamplerSpec(name="tpe", options={"n_startup_trials": 2, "group": True}), id="tpe-group"),
    pytest.param(SamplerSpec(name="cmaes"), id="cmaes"),
    pytest.param(SamplerSpec(name="qmc"), id="qmc"),
    pytest.param(SamplerSpec(name="nsga2", options={"population_size": 2}), id="nsga2"),
    pytest.param(SamplerSpec(name="nsga3", options={"population_size": 2}), id="nsga3"),
    pytest.param(SamplerSpec(name="random"), id="random"),
]
if find_spec("torch") is not None:  # the extra gp
    SPECS.append(pytest.param(SamplerSpec(name="gp", options={"n_startup_trials": 2}), id="gp"))


class OfEachSampler:
    """What the suites call a sampler: a function that makes one."""

    @pytest.fixture(params=SPECS)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        """One of ours."""
        return lambda: Presampled(request.param)


class TestBasics(OfEachSampler, BasicSamplerTestCase):
    """Values of each kind within their bounds, conditions, ranges that change, objectives that give NaN."""


class TestRelative(OfEachSampler, RelativeSamplerTestCase):
    """Whole points."""
