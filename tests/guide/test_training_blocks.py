"""The guide's two objectives, word for word, with what they leave undefined made of real models and real text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import highnoon as hn
from highnoon.config import Config
from highnoon.shared.domain.states import TrialState
from tests.guide.blocks import blocks, run

SPACE = {"learning_rate": ("log_uniform", 1e-3, 1e-2), "batch_size": ("categorical", [8])}


@pytest.fixture(autouse=True)
def _a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")


def config_from_trial(trial_config: dict[str, Any]) -> Config:
    return Config.from_dict({**trial_config, "num_blocks": 1, "num_experts": 2, "block_pattern": "transformer"})


def some_text(first: int) -> np.ndarray:
    """Ids of the built-in text as `[8, 33]`."""
    dataset = hn.TextDataset(["the cat sat on the mat, and the dog lay on the log. " * 20], max_length=33)
    return np.stack([dataset[first + number][0] for number in range(8)])


def evaluate(model: Any, ids: np.ndarray | None = None) -> float:
    """Mean cross-entropy of the next id, in nats."""
    ids = some_text(8) if ids is None else ids
    logits = np.asarray(model(ids[:, :-1], training=False))
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(-np.take_along_axis(chances, ids[:, 1:, None], axis=-1).mean())


def test_basic_structure() -> None:
    objective = run(
        blocks("Basic Structure")[0],
        hn=hn,
        config_from_trial=config_from_trial,
        evaluate=evaluate,
        val_dataset=some_text(0),
    )["objective"]
    hpo = hn.HPOTrialManager("guide", n_trials=1)

    with pytest.warns(UserWarning, match="there is no dataset 'train_data'"):
        hpo.optimize(objective, SPACE)

    assert hpo.best_value < np.log(60_000), "better than a guess among all ids"


def train_epoch(model: Any) -> float:
    """A step on one batch."""
    import keras
    import tensorflow as tf

    ids = some_text(0)
    with tf.GradientTape() as tape:
        logits = model(ids[:, :-1], training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(ids[:, 1:], logits, from_logits=True))
    keras.optimizers.SGD(0.1).apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return float(loss)


def test_with_early_stopping() -> None:
    hpo = hn.HPOTrialManager("guide", n_trials=1)
    given = {"hn": hn, "hpo": hpo, "config_from_trial": config_from_trial}
    objective = run(blocks("With Early Stopping")[0], **given, train_epoch=train_epoch, evaluate=evaluate)["objective"]

    hpo.optimize(objective, SPACE)

    losses = [report.value for report in hpo.best_trial.reports]
    assert hpo.best_trial.state == TrialState.COMPLETE
    assert hpo.best_value == min(losses) < losses[0] < np.log(60_000)
