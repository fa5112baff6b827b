"""The memory forecast against the peak of a real training in a fresh process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import highnoon as hn
from benchmarks.forecast import TINY, measured
from highnoon.models.memory import forecast_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's")
@pytest.mark.parametrize(
    "training",
    [
        {"model": TINY, "batch_size": 8, "seq_len": 256},
        {"model": TINY | {"embedding_dim": 256, "num_moe_experts": 8}, "batch_size": 1, "seq_len": 64},
    ],
    ids=["activations", "weights"],
)
def test_the_forecast_is_near_the_peak(training: dict[str, Any]) -> None:
    said = measured(training)

    assert said["forecast"] == pytest.approx(said["peak"], rel=0.25)


def test_the_parts_add_up_and_grow_with_what_they_hang_on() -> None:
    config = hn.ModelConfig(**TINY)
    small, wide, long = (forecast_memory(config, *shape) for shape in ((4, 128), (8, 128), (4, 256)))

    assert small.weights == 4 * hn.count_parameters(config)
    assert small.optimizer == 2 * small.weights
    assert wide.activations == pytest.approx(2 * small.activations, rel=1e-6)
    assert long.activations > wide.activations  # attention
    assert (wide.weights, wide.gradients, wide.optimizer) == (small.weights, small.gradients, small.optimizer)
    assert small.total == hn.estimate_memory(config, 4, 128)
