"""Speed of the HSMN's parts: `python -m benchmarks.model [scan] [experts] [training]`, all of them when none is named.

scan       selective scan against `tf.scan`, forward and backward, [4, 1024] tokens, 8 heads x 16, state 16
experts    grouping tokens by expert against computing every expert for every token, forward and backward
training   tokens/s of an HSMN against a GPT made of Keras' own layers with as many parameters, same run

Each pair takes turns on the same machine; printed are the medians. Run it on an idle machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import highnoon as hn
from highnoon.lm.models.experts import MixtureOfExperts
from highnoon.lm.models.mixers import selective_scan

BATCH, LENGTH, HEADS, WIDTH, STATE = 4, 1024, 8, 16, 16


def scan() -> None:
    """Chunk sizes, with and without XLA, and the step-by-step scan."""
    given = _scan_inputs()
    contestants = {"tf.scan": _gradients_of(_stepped, given)}
    for chunk in (16, 32, 64, 128):
        for jit in (False, True):
            name = f"selective_scan, chunk {chunk}{', XLA' if jit else ''}"
            contestants[name] = _gradients_of(partial(selective_scan, chunk=chunk), given, jit)
    _report(contestants, rounds=9)


def experts() -> None:
    """The routed layer and its dense equal, at one and two experts of eight."""
    for dim, top_k in ((64, 2), (256, 2), (256, 1)):
        config = hn.ModelConfig(embedding_dim=dim, num_moe_experts=8, top_k_experts=top_k)
        layer = MixtureOfExperts(config)
        layer.build((None, None, dim))
        tokens = tf.random.normal([4, 512, dim], seed=1)
        difference = float(tf.reduce_max(tf.abs(layer(tokens) - _dense_experts(layer, top_k, tokens))))
        print(f"dim {dim}, {top_k} of 8 experts, 2,048 tokens (largest difference {difference:.1e})")
        weights = layer.trainable_variables
        _report(
            {
                "grouped by expert": _gradients_of(layer, [tokens], weights=weights),
                "all experts": _gradients_of(partial(_dense_experts, layer, top_k), [tokens], weights=weights),
            },
            rounds=9,
        )


def training() -> None:
    """One optimizer step of each model on the same random tokens."""
    shape = {"vocab_size": 256, "embedding_dim": 128, "num_reasoning_blocks": 6, "num_moe_experts": 4}
    hsmn = hn.create_model(shape, dropout_rate=0.1)
    gpt = _gpt_like(hsmn)
    print(f"HSMN: {hsmn.count_params():,} parameters, {hn.active_parameters(hsmn.config):,} active per token")
    print(f"GPT of Keras layers: {gpt.count_params():,} parameters, all active")
    for batch, length in ((8, 256), (2, 1024)):
        ids = tf.constant(np.random.default_rng(0).integers(0, 256, (batch, length + 1)), tf.int32)
        print(f"batch {batch}, length {length}")
        medians = _report({"HSMN": _training_step(hsmn, ids), "GPT": _training_step(gpt, ids)}, rounds=9)
        speeds = {name: batch * length / seconds for name, seconds in medians.items()}
        print(f"  tokens/s: {', '.join(f'{name} {speed:,.0f}' for name, speed in speeds.items())}")


def _scan_inputs() -> list[Any]:
    random = np.random.default_rng(0)
    values = random.normal(size=(BATCH, LENGTH, HEADS, WIDTH))
    steps = np.exp(random.uniform(np.log(1e-3), np.log(1e-1), (BATCH, LENGTH, HEADS)))
    writes, reads = random.normal(size=(2, BATCH, LENGTH, STATE))
    given = (values, steps, -np.linspace(1, 16, HEADS), writes, reads)
    return [tf.constant(tensor, tf.float32) for tensor in given]


def _stepped(values: Any, steps: Any, rates: Any, writes: Any, reads: Any) -> Any:
    def step(state: Any, at: Any) -> Any:
        value, size, write = at
        inflow = (size[..., None] * value)[..., None] * write[:, None, None]
        return tf.exp(size * rates)[..., None, None] * state + inflow

    along = (tf.einsum("blhw->lbhw", values), tf.einsum("blh->lbh", steps), tf.einsum("bls->lbs", writes))
    states = tf.scan(step, along, tf.zeros([BATCH, HEADS, WIDTH, STATE]))
    return tf.einsum("lbhws,bls->blhw", states, reads)


def _dense_experts(layer: Any, top_k: int, sequence: Any) -> Any:
    tokens = tf.reshape(sequence, [-1, sequence.shape[-1]])
    probabilities = tf.nn.softmax(tokens @ layer._router)
    gates, chosen = tf.math.top_k(probabilities, top_k)
    if top_k > 1:
        gates /= tf.reduce_sum(gates, axis=-1, keepdims=True)
    weights = tf.reduce_sum(tf.one_hot(chosen, probabilities.shape[-1]) * gates[..., None], axis=1)
    inner = tf.nn.gelu(tf.matmul(tokens[None], layer._kernel_in) + tf.convert_to_tensor(layer._bias_in)[:, None])
    answers = tf.matmul(inner, layer._kernel_out) + tf.convert_to_tensor(layer._bias_out)[:, None]
    return tf.reshape(tf.einsum("ntd,tn->td", answers, weights), sequence.shape)


def _gpt_like(hsmn: Any) -> Any:
    """A GPT-like model with as many blocks and the same width; its feed-forward is as wide as makes the sizes equal."""
    config = hsmn.config
    dim, blocks = config.embedding_dim, config.num_reasoning_blocks
    spare = hsmn.count_params() - 2 * config.vocab_size * dim - 2 * dim
    inner = (spare // blocks - 4 * dim * dim - 4 * dim - 5 * dim) // (2 * dim + 1)
    ids = keras.Input((None,), dtype="int32")
    tokens = keras.layers.Embedding(config.vocab_size, dim)(ids)
    for _ in range(blocks):
        normed = keras.layers.LayerNormalization()(tokens)
        attention = keras.layers.MultiHeadAttention(config.num_heads, dim // config.num_heads)
        tokens += keras.layers.Dropout(config.dropout_rate)(attention(normed, normed, use_causal_mask=True))
        normed = keras.layers.LayerNormalization()(tokens)
        fed = keras.layers.Dense(dim)(keras.layers.Dense(inner, activation="gelu")(normed))
        tokens += keras.layers.Dropout(config.dropout_rate)(fed)
    logits = keras.layers.Dense(config.vocab_size, use_bias=False)(keras.layers.LayerNormalization()(tokens))
    return keras.Model(ids, logits)


def _training_step(model: Any, ids: Any) -> Callable[[], Any]:
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
    weights = model.trainable_variables
    optimizer.build(weights)

    def step() -> Any:
        with tf.GradientTape() as tape:
            logits = model(ids[:, :-1], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids[:, 1:], logits)
            loss = tf.add_n([tf.reduce_mean(losses), *model.losses])
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, weights), 1.0)
        optimizer.apply(gradients, weights)
        return loss

    compiled: Callable[[], Any] = tf.function(step, autograph=False)
    return compiled


def _gradients_of(
    function: Callable[..., Any], given: list[Any], jit: bool = False, weights: list[Any] | None = None
) -> Callable[[], Any]:
    def gradients(given: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf.reduce_sum(function(*given) ** 2)
        return tape.gradient(loss, [*given, *(weights or [])])

    return partial(tf.function(gradients, autograph=False, jit_compile=jit), given)


def _report(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Prints and returns median seconds of each, run in turns, so that a busy moment affects all alike."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            tf.nest.map_structure(lambda tensor: tf.convert_to_tensor(tensor).numpy(), run())
            taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in medians.items():
        print(f"  {name:32} {seconds * 1e3:9.1f} ms", flush=True)
    return medians


def main() -> None:
    """Runs the parts that are named."""
    parts = {"scan": scan, "experts": experts, "training": training}
    for name in sys.argv[1:] or parts:
        print(name)
        parts[name]()


if __name__ == "__main__":
    main()
