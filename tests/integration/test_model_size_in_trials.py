"""A model that is built inside a trial reports its own size: scores and budgets know it without a word of the user."""

from __future__ import annotations

from typing import Any

import pytest

import highnoon as hn
from highnoon.lm.models.size import active_parameters, count_parameters
from highnoon.shared.domain.errors import NoCompletedTrial
from highnoon.shared.domain.states import TrialState

SHAPE = {"vocab_size": 64, "num_heads": 2, "num_reasoning_blocks": 1, "num_moe_experts": 2, "top_k_experts": 1}


def size(dim: int) -> int:
    return count_parameters(hn.ModelConfig(**SHAPE, embedding_dim=dim))


def test_the_score_counts_the_model_that_was_built() -> None:
    def objective(params: dict[str, Any]) -> float:
        hn.create_model(hn.ModelConfig(**SHAPE, embedding_dim=params["embedding_dim"]))
        return 1.0

    hpo = hn.HPOTrialManager("sizes", n_trials=2, sampler="grid", param_budget=size(32))
    best = hpo.optimize(objective, {"embedding_dim": ("categorical", [16, 32])})

    assert best == {"embedding_dim": 16}
    by_size = {trial.params["embedding_dim"]: trial for trial in hpo.trials}
    assert by_size[32].value == 1.1
    assert by_size[32].params_count == size(32)
    assert by_size[16].active_params == active_parameters(hn.ModelConfig(**SHAPE, embedding_dim=16))


def test_a_hard_budget_ends_the_trial_before_the_model_is_built() -> None:
    built = []

    def objective(params: dict[str, Any]) -> float:
        built.append(hn.create_model(hn.ModelConfig(**SHAPE, embedding_dim=32)))
        return 1.0

    hpo = hn.HPOTrialManager("sizes", n_trials=1, param_budget=size(16), param_budget_hard=True)
    with pytest.raises(NoCompletedTrial):
        hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})

    assert built == []
    assert [trial.state for trial in hpo.trials] == [TrialState.PRUNED]
