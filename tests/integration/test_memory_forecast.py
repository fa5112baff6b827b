"""What cannot fit into memory is refused by forecast: before it is built, before its first step, never in doubt."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import highnoon as hn
from highnoon.lm.models.size import forecast_memory
from highnoon.shared.domain.errors import DoesNotFit, TrialStopped
from highnoon.shared.domain.memory_sizes import MemoryWishes
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.attempt import run_attempt
from tests.unit.test_execution import RecordingChannel

MIB = 1 << 20
SHAPE = {"vocab_size": 256, "embedding_dim": 32, "num_heads": 2, "num_reasoning_blocks": 1, "num_moe_experts": 2}
CONFIG = hn.ModelConfig(**SHAPE)
NO_MACHINE = hn.ModelConfig(**{**SHAPE, "embedding_dim": 2**17, "num_reasoning_blocks": 1000})
"""Petabytes."""


def outcome_under(limit_bytes: int, objective: Any) -> Outcome:
    return run_attempt(objective, {}, RecordingChannel(), memory=MemoryWishes(trial_memory_limit=limit_bytes))


def test_a_trial_whose_model_cannot_be_trained_ends_before_it_is_built() -> None:
    built = []

    def objective(params: dict[str, Any]) -> float:
        built.append(hn.create_model(CONFIG))
        return 1.0

    limit = forecast_memory(CONFIG, 1, 1).total // 2
    outcome = outcome_under(limit, objective)

    assert (outcome.ending, outcome.cause) == (Ending.STOPPED, "memory_forecast")
    assert outcome.constraint == pytest.approx(1.0, abs=1e-6)
    assert outcome.params_count == hn.count_parameters(CONFIG), "the size is recorded nevertheless"
    assert built == []


def test_a_training_is_refused_for_its_batch_before_its_first_step(caplog: pytest.LogCaptureFixture) -> None:
    def objective(params: dict[str, Any]) -> float:
        trainer = hn.Trainer(hn.create_model(CONFIG), batch_size=4096, max_seq_length=32, epochs=1)
        return float(trainer.train()["final_loss"])

    with caplog.at_level(logging.WARNING), pytest.warns(UserWarning, match="built-in text"):
        outcome = outcome_under(100 * MIB, objective)

    assert (outcome.ending, outcome.cause) == (Ending.STOPPED, "memory_forecast"), outcome
    assert "batches of 4096 x 32 tokens" in outcome.message and "limit 100 MiB" in outcome.message
    assert outcome.constraint is not None and outcome.constraint > 0.25
    assert "EnterpriseMemoryManager" not in caplog.text, "nothing of the training has begun"


def test_nothing_is_refused_within_the_error_of_the_forecast() -> None:
    def objective(params: dict[str, Any]) -> float:
        hn.create_model(CONFIG)
        return 1.0

    assert outcome_under(round(forecast_memory(CONFIG, 1, 1).total / 1.24), objective).ending is Ending.COMPLETED
    assert outcome_under(round(forecast_memory(CONFIG, 1, 1).total / 1.26), objective).ending is Ending.STOPPED


def test_outside_a_trial_it_is_an_error_that_names_both_sizes_and_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(
        DoesNotFit, match=r"its weights would take about .* GiB .* limit .* GiB\. Choose a smaller"
    ) as caught:
        hn.create_model(NO_MACHINE)
    assert not isinstance(caught.value, TrialStopped)
