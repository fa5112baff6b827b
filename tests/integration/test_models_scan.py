"""The selective scan against the recurrence that it stands for, step by step in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from highnoon.lm.models.mixers import selective_scan

HEADS, WIDTH, STATE = 4, 8, 16
STEPS = {
    "as at the start of training": lambda random, shape: np.exp(random.uniform(np.log(1e-3), np.log(1e-1), shape)),
    "weak decay": lambda random, shape: random.uniform(1e-6, 1e-4, shape),
    "strong decay": lambda random, shape: random.uniform(1, 10, shape),
    "now and then forgets all": lambda random, shape: np.where(random.random(shape) < 0.1, 10.0, 1e-3),
    "beyond every float": lambda random, shape: np.where(random.random(shape) < 0.1, 1e6, 1e-3),
}


def inputs(steps: str, length: int, batch: int = 2) -> list[Any]:
    random = np.random.default_rng(length)
    values = random.normal(size=(batch, length, HEADS, WIDTH))
    writes, reads = random.normal(size=(2, batch, length, STATE))
    rates = -np.linspace(1, 16, HEADS)
    given = (values, STEPS[steps](random, (batch, length, HEADS)), rates, writes, reads)
    return [tensor.astype(np.float32) for tensor in given]


def recurrence(values: Any, steps: Any, rates: Any, writes: Any, reads: Any) -> Any:
    values, steps, rates, writes, reads = (t.astype(np.float64) for t in (values, steps, rates, writes, reads))
    state = np.zeros((values.shape[0], HEADS, WIDTH, STATE))
    out = np.zeros_like(values)
    for t in range(values.shape[1]):
        decay = np.exp(steps[:, t] * rates)[..., None, None]
        state = decay * state + (steps[:, t, :, None] * values[:, t])[..., None] * writes[:, t, None, None]
        out[:, t] = np.einsum("bhws,bs->bhw", state, reads[:, t])
    return out


@pytest.mark.parametrize("length", [1, 32, 100, 1100])
@pytest.mark.parametrize("steps", STEPS)
def test_scan_equals_the_recurrence(steps: str, length: int) -> None:
    given = inputs(steps, length)

    scanned = selective_scan(*map(tf.constant, given)).numpy()

    expected = recurrence(*given)
    deviation = np.linalg.norm(scanned - expected, axis=(2, 3)) / np.linalg.norm(expected, axis=(2, 3))
    assert deviation.max() < 1e-4


@pytest.mark.parametrize("chunk", [7, 64])
def test_chunk_size_does_not_change_the_result(chunk: int) -> None:
    given = [tf.constant(tensor) for tensor in inputs("now and then forgets all", 100)]

    np.testing.assert_allclose(selective_scan(*given, chunk=chunk), selective_scan(*given), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("steps", STEPS)
def test_gradients_equal_those_of_the_recurrence(steps: str) -> None:
    given = [tf.constant(tensor) for tensor in inputs(steps, 70, batch=1)]

    for ours, expected in zip(gradients(selective_scan, given), gradients(stepped, given), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * float(tf.reduce_max(tf.abs(expected))))


@tf.function(autograph=False)
def gradients(scan: Any, given: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = tf.reduce_sum(scan(*given) ** 2)
    return tape.gradient(loss, given)


def stepped(values: Any, steps: Any, rates: Any, writes: Any, reads: Any) -> Any:
    """One step of the graph serves all: written out seventy times, it would be compiled for seconds."""

    def step(state: Any, now: Any) -> Any:
        value, step, write = now
        inflow = (step[..., None] * value)[..., None] * write[:, None, None]
        return tf.exp(step * rates)[..., None, None] * state + inflow

    in_time = tuple(tf.einsum("bt...->tb...", tensor) for tensor in (values, steps, writes))
    states = tf.scan(step, in_time, tf.zeros([values.shape[0], HEADS, WIDTH, STATE]))
    return tf.einsum("tbhws,bts->bthw", states, reads)
