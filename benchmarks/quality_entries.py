"""The samplers that `benchmarks.quality` compares: each entry proposes points, and receives their losses.

Samplers of other libraries (`PEERS`) run in environments of their own: see `benchmarks.peers.samplers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from benchmarks.peers.sampler_process import PEERS, SamplerProcess
from benchmarks.quality_tables import Question
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params
from highnoon.shared.search.samplers import distributions
from highnoon.shared.store.optuna_store import OptunaStore

Ask = Callable[[int], tuple[Any, Params]]
Tell = Callable[[Any, float], None]
Entry = Callable[[Question, int], tuple[Ask, Tell]]
"""Runs the sampler of one question and seed, and returns its proposals and results."""


def own_sampler(name: str) -> Entry:
    """A sampler of HighNoon, by its name in a study file."""

    def opened(asked: Question, seed: int) -> tuple[Ask, Tell]:
        store = OptunaStore(None)
        spec = StudySpec.from_json(
            {"name": "q", "objective": "m:f", "sampler": name, "search_space": asked.space, "seed": seed}
        )
        store.create_study("q", "minimize")
        study = store.open(spec)

        def ask(ordinal: int) -> tuple[Any, Params]:
            started = study.start_trial(ordinal=ordinal)
            return started.trial_id, started.params

        def tell(trial_id: Any, loss: float) -> None:
            study.finish_trial(trial_id, Outcome(ending=Ending.COMPLETED, value=loss))

        return ask, tell

    return opened


def optuna_sampler(sampler: Callable[[int], BaseSampler]) -> Entry:
    """A sampler of Optuna, by ask and tell."""

    def opened(asked: Question, seed: int) -> tuple[Ask, Tell]:
        study = optuna.create_study(sampler=sampler(seed))
        space = distributions(parse_space(asked.space))

        def ask(_: int) -> tuple[Any, Params]:
            trial = study.ask(space)
            return trial, trial.params

        def tell(trial: Any, loss: float) -> None:
            study.tell(trial, loss)

        return ask, tell

    return opened


_processes: dict[str, SamplerProcess] = {}


def _other_library(name: str, asked: Question, seed: int) -> tuple[Ask, Tell]:
    """A sampler of another library; its process serves one study after the other."""
    if name not in _processes:
        _processes[name] = SamplerProcess(name)
    process = _processes[name]
    process.open(asked.space, seed)
    return process.ask, process.tell


ENTRIES: Mapping[str, Entry] = {
    "auto": own_sampler("auto"),
    "tpe": own_sampler("tpe"),
    "optuna": optuna_sampler(lambda seed: TPESampler(seed=seed)),
    "optuna-univariate": optuna_sampler(lambda seed: TPESampler(seed=seed, multivariate=False)),
    "cmaes": optuna_sampler(lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False)),
    "random": optuna_sampler(lambda seed: RandomSampler(seed=seed)),
    "gp": optuna_sampler(lambda seed: GPSampler(seed=seed, warn_independent_sampling=False)),
    **{name: partial(_other_library, name) for name in PEERS},
}

USUAL = tuple(name for name in ENTRIES if name != "gp" and name not in PEERS)
"""What needs nothing beyond the development environment, and milliseconds for a proposal."""
