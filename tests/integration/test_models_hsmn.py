"""The HSMN as a whole: it counts as the formula does, never looks ahead, learns, answers, and comes back from disk."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import highnoon as hn
from highnoon.config import ModelConfig
from highnoon.lm.models.experts import imbalance
from highnoon.lm.models.hsmn import HSMN
from highnoon.shared.domain.errors import InvalidInput

SMALL = {
    "vocab_size": 50,
    "embedding_dim": 16,
    "num_reasoning_blocks": 3,
    "num_moe_experts": 4,
    "num_heads": 4,
    "max_seq_length": 128,
}


def small(**overrides: Any) -> HSMN:
    """A model whose weights hang on nothing but its configuration."""
    keras.utils.set_random_seed(1)
    return hn.create_model(SMALL, **overrides)


def some_ids(batch: int = 2, length: int = 40, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, SMALL["vocab_size"], (batch, length)).astype(np.int32)


# How large it is


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"vocab_size": 51},
        {"embedding_dim": 24},
        {"num_reasoning_blocks": 1},
        {"num_reasoning_blocks": 7},
        {"num_moe_experts": 5},
        {"num_moe_experts": 1, "top_k_experts": 1},
        {"mamba_d_state": 32},
        {"mamba_d_conv": 3},
        {"mamba_d_conv": 1},
        {"mamba_expand": 3},
        {"num_heads": 16},
        {"num_heads": 1, "embedding_dim": 7},
        {"block_pattern": "mamba_only", "mamba_d_state": 5},
        {"block_pattern": "transformer"},
        {"tie_embeddings": False},
    ],
    ids=str,
)
def test_the_formula_counts_what_keras_counts(overrides: dict[str, Any]) -> None:
    model = small(**overrides)

    assert hn.count_parameters(model.config) == model.count_params()


@pytest.mark.parametrize(
    "knob",
    [
        {"vocab_size": 51},
        {"embedding_dim": 24},
        {"num_reasoning_blocks": 4},
        {"num_moe_experts": 5},
        {"mamba_d_state": 32},
        {"mamba_d_conv": 5},
        {"mamba_expand": 3},
    ],
    ids=str,
)
def test_size_options_change_the_parameter_count(knob: dict[str, Any]) -> None:
    before, after = ModelConfig.from_dict(SMALL), ModelConfig.from_dict(SMALL | knob)

    assert hn.count_parameters(after) != hn.count_parameters(before)


# What the other knobs change: the same weights, another answer


@pytest.mark.parametrize("knob", [{"top_k_experts": 1}, {"num_heads": 2, "block_pattern": "transformer"}], ids=str)
def test_computation_options_change_the_logits(knob: dict[str, Any]) -> None:
    pattern = {"block_pattern": knob["block_pattern"]} if "block_pattern" in knob else {}
    one, other = small(**pattern), small(**knob)
    other.set_weights(one.get_weights())

    assert np.abs(one(some_ids()) - other(some_ids())).max() > 1e-4


def test_top_k_changes_what_a_token_uses() -> None:
    one, two = (ModelConfig.from_dict(SMALL | {"top_k_experts": k}) for k in (1, 2))

    expert = 2 * 16 * 64 + 64 + 16
    assert hn.active_parameters(two) - hn.active_parameters(one) == 3 * expert
    assert hn.count_parameters(two) == hn.count_parameters(one)


def test_dropout_acts_in_training_only() -> None:
    with_it, without = small(dropout_rate=0.5), small(dropout_rate=0.0)
    ids = some_ids()

    assert np.abs(with_it(ids, training=True) - with_it(ids, training=True)).max() > 1e-3
    np.testing.assert_array_equal(with_it(ids), with_it(ids))
    np.testing.assert_array_equal(without(ids, training=True), without(ids))


def test_the_balance_loss_is_added_in_training_only_and_reaches_the_routers() -> None:
    light, heavy = small(aux_loss_weight=0.01, dropout_rate=0.0), small(aux_loss_weight=0.1, dropout_rate=0.0)
    ids = some_ids()

    with tf.GradientTape() as tape:
        heavy(ids, training=True)
        total = tf.add_n(heavy.losses)
    light(ids, training=True)

    assert len(heavy.losses) == 3
    np.testing.assert_allclose(total, 10 * tf.add_n(light.losses), rtol=1e-5)
    routers = [weight for weight in heavy.trainable_variables if weight.name == "router"]
    assert len(routers) == 3
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(total, routers))
    heavy(ids, training=False)
    assert heavy.losses == []


def test_balance_loss_is_one_when_balanced_and_the_number_of_experts_at_most() -> None:
    even = imbalance(tf.fill([8, 4], 0.25), tf.reshape(tf.range(16) % 4, [8, 2]))
    taken_by_one = imbalance(tf.one_hot(tf.zeros(8, tf.int32), 4), tf.zeros([8, 1], tf.int32))

    assert (float(even), float(taken_by_one)) == (1.0, 4.0)


def test_router_has_a_gradient_with_a_single_chosen_expert() -> None:
    model = small(top_k_experts=1, aux_loss_weight=0.0)
    routers = [weight for weight in model.trainable_variables if weight.name == "router"]

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(some_ids(), training=True) ** 2)

    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(loss, routers))


def test_every_weight_has_a_gradient() -> None:
    model = small(tie_embeddings=False)

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(some_ids(), training=True) ** 2)

    silent = [
        weight.path
        for weight, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        )
        if gradient is None or np.abs(tf.convert_to_tensor(gradient)).max() == 0
    ]
    assert silent == []


# It never looks ahead


ROUNDING = 1e-6
"""An expert computes the tokens that chose it together, and a matrix of another height is summed in another order."""


@pytest.mark.parametrize(
    ("pattern", "top_k"),
    [*itertools.product(["mamba_only", "transformer", "hybrid"], [1, 2, 4])],
)
def test_no_logit_depends_on_a_later_token(pattern: str, top_k: int) -> None:
    model = small(block_pattern=pattern, top_k_experts=top_k)
    ids = some_ids(length=70)
    before = model(ids).numpy()

    for t in (1, 33, 69):
        changed = ids.copy()
        changed[:, t:] = some_ids(length=70, seed=t)[:, t:]
        after = model(changed).numpy()

        assert np.abs(after - before)[:, :t].max() < ROUNDING
        assert np.abs(after - before)[:, t:].max() > 100 * ROUNDING


def test_padding_after_a_text_does_not_change_its_logits() -> None:
    model = small()
    ids = some_ids(length=64)
    padded = ids.copy()
    padded[0, 20:] = 0

    assert np.abs(model(padded).numpy()[0, :20] - model(ids).numpy()[0, :20]).max() < ROUNDING


def test_wavelet_mixer_reads_28_tokens_back() -> None:
    from highnoon.lm.models.mixers import WaveletMixer

    mixer = WaveletMixer(ModelConfig.from_dict(SMALL))
    impulse = np.zeros((1, 60, 16), np.float32)
    impulse[:, 10] = 1.0
    mixer.build(impulse.shape)

    response = mixer._convolved(tf.constant(impulse)).numpy()[0].any(axis=-1)

    assert np.flatnonzero(response).tolist() == list(range(10, 39))


# It learns


def test_model_overfits_one_batch() -> None:
    model = small(embedding_dim=32, dropout_rate=0.0)
    ids = tf.constant(some_ids(batch=2, length=33))
    optimizer = keras.optimizers.SGD(0.3, momentum=0.9)

    @tf.function(autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            logits = model(ids[:, :-1], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids[:, 1:], logits)
            loss = tf.reduce_mean(losses)
            total = loss + tf.add_n(model.losses)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(total, weights), weights)
        return loss

    first = float(step())
    for _ in range(40):
        last = float(step())

    assert first == pytest.approx(np.log(SMALL["vocab_size"]), rel=0.2)
    assert last < 0.1


# It answers, and is refused what cannot work


def test_properties_match_the_configuration() -> None:
    model = small()

    assert (model.vocab_size, model.embedding_dim, model.num_blocks, model.max_seq_length) == (50, 16, 3, 128)
    logits = model([[1, 2, 3]])
    assert (logits.shape, logits.dtype) == ((1, 3, 50), tf.float32)


def test_sequence_longer_than_max_seq_length_is_refused() -> None:
    model = small(max_seq_length=8)

    assert model(some_ids(length=8)).shape == (2, 8, 50)
    with pytest.raises(InvalidInput, match="holds 9 tokens in a row, max_seq_length is 8"):
        model(some_ids(length=9))


def test_generation_continues_the_prompt() -> None:
    model = small(max_seq_length=8)

    greedy = model.generate([1, 2, 3], max_new_tokens=10, temperature=0)

    assert greedy[:3] == [1, 2, 3]
    assert len(greedy) == 13
    likeliest = int(np.argmax(model(np.array([greedy[4:12]]))[0, -1]))
    assert greedy[12] == likeliest  # from the last eight, which is all that fits
    assert model.generate([1, 2, 3], 10, temperature=5.0, top_k=1) == greedy
    warm = model.generate([[1, 2], [3, 4]], 10, temperature=2.0, top_k=5, seed=3)
    assert warm == model.generate([[1, 2], [3, 4]], 10, temperature=2.0, top_k=5, seed=3)
    assert warm != model.generate([[1, 2], [3, 4]], 10, temperature=2.0, top_k=5, seed=4)


@pytest.mark.parametrize("prompt", [[], "text", [[1, 2], [3]], [50], [-1], [1.5]], ids=str)
def test_prompt_without_ids_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        small().generate(prompt, max_new_tokens=-1, temperature=-1.0, top_k=0)

    keys = [problem.key for problem in refused.value.problems]
    assert keys == ["prompt", "max_new_tokens", "temperature", "top_k"]


def test_create_model_takes_what_the_guide_gives_it() -> None:
    config = hn.Config(model=ModelConfig.from_dict(SMALL))

    for given in (config, config.model, config.to_dict(), SMALL | {"learning_rate": 1e-3}):
        assert hn.create_model(given, num_blocks=2).config == ModelConfig.from_dict(SMALL | {"num_reasoning_blocks": 2})
    assert hn.create_model("highnoon-small", embedding_dim=16, vocab_size=50).num_blocks == 4
    with pytest.raises(InvalidInput, match="is not a known preset"):
        hn.create_model("smal")
    with pytest.raises(InvalidInput, match="Did you mean embedding_dim"):
        hn.create_model(config, embeding_dim=3)
    with pytest.raises(InvalidInput, match="Give a preset's name"):
        hn.create_model(7)  # type: ignore[arg-type]


# It comes back from disk


def test_saved_model_gives_the_same_logits(tmp_path: Path) -> None:
    model = small(tie_embeddings=False)
    model.save(tmp_path / "model.keras")

    loaded = hn.load_model(tmp_path / "model.keras")

    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded(some_ids()), model(some_ids()))


_ELSEWHERE = """
import sys
from highnoon.shared.runtime.processes import tensorflow_has_run
seen = [tensorflow_has_run()]
import tensorflow
seen.append(tensorflow_has_run())
import highnoon as hn
print(hn.load_model(sys.argv[1]).generate([1, 2], 4, temperature=0))
print(*seen, tensorflow_has_run())
"""


def test_another_process_loads_it_and_is_seen_to_have_started_tensorflow(tmp_path: Path) -> None:
    """The second is the contract of `tensorflow_has_run`, which looks at TensorFlow without importing it."""
    model = small()
    model.save(tmp_path / "model.keras")

    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path / "model.keras")],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(model.generate([1, 2], 4, temperature=0)), "False False True"]


def test_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_text("not a model")

    for name, why in {"model.keras": "is not a saved model", "missing.keras": "file: there is no such file"}.items():
        with pytest.raises(InvalidInput, match=why):
            hn.load_model(tmp_path / name)


def test_mixed_precision_keeps_router_and_decays_in_float32() -> None:
    model, plain = HSMN(ModelConfig.from_dict(SMALL), dtype="mixed_bfloat16"), small()
    model.set_weights(plain.get_weights())

    logits = model(some_ids())

    assert logits.dtype == tf.float32
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert 0 < np.abs(logits - plain(some_ids())).mean() < 0.01
