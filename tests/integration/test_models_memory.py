"""The memory forecast against the peak of a real training in a fresh process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import highnoon as hn
from benchmarks.forecast import TINY, measured
from highnoon.lm.models.size import forecast_memory

TRAININGS: dict[str, dict[str, Any]] = {
    "activations": {"model": TINY, "batch_size": 8, "seq_len": 256},
    "weights": {"model": TINY | {"embedding_dim": 256, "num_moe_experts": 8}, "batch_size": 1, "seq_len": 64},
}


@pytest.fixture(scope="module")
def measurements() -> Iterator[dict[str, Future[dict[str, int]]]]:
    """Of each, in a process of its own; memory does not mind that they run side by side."""
    with ThreadPoolExecutor() as threads:
        yield {name: threads.submit(measured, training) for name, training in TRAININGS.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's")
@pytest.mark.parametrize("name", TRAININGS)
def test_forecast_is_within_25_percent_of_the_peak(measurements: dict[str, Future[dict[str, int]]], name: str) -> None:
    said = measurements[name].result()

    assert said["forecast"] == pytest.approx(said["peak"], rel=0.25)


def test_parts_add_up_and_grow_with_their_inputs() -> None:
    config = hn.ModelConfig(**TINY)
    small, wide, long = (forecast_memory(config, *shape) for shape in ((4, 128), (8, 128), (4, 256)))

    assert small.weights == 4 * hn.count_parameters(config)
    assert small.optimizer == 2 * small.weights
    assert wide.activations == pytest.approx(2 * small.activations, rel=1e-6)
    assert long.activations > wide.activations  # attention
    assert (wide.weights, wide.gradients, wide.optimizer) == (small.weights, small.gradients, small.optimizer)
    assert small.total == hn.estimate_memory(config, 4, 128)
