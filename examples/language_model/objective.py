"""HSMN, HighNoon's language model, on the English text that CPython carries for its help(): small, real, offline.

`train` is the objective: the validation loss in nats per byte after EPOCHS epochs. It reports every epoch and stops
when the study's pruner decides so. For comparison it prints two numbers that any model must beat: the entropy of a
uniform guess, and the one of the frequencies of single bytes.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

import highnoon as hn
from highnoon.lm.data.sources import load_documents, split_documents, without_leaks

EPOCHS = 4
BYTES_PER_EPOCH = 50_000
SEQUENCE = 128
HELD_OUT_SHARE = 0.1
SPLIT_SEED = 0


def train(params: dict[str, Any]) -> float:
    """Trains one model with `params`; returns its validation loss. Raises TrialPruned when it is pruned."""
    stay_on_one_core()
    model = hn.create_model("small", vocab_size=256, max_seq_length=SEQUENCE, num_heads=4, **shape_in(params))
    trainer = hn.Trainer(
        model,
        learning_rate=params["learning_rate"],
        batch_size=params["batch_size"],
        max_seq_length=SEQUENCE,
        tokens_per_epoch=BYTES_PER_EPOCH,
        validation_split=HELD_OUT_SHARE,
        seed=SPLIT_SEED,
        report_to="hpo",
    )
    trainer.add_curriculum_stage("python-docs", datasets="python-docs", epochs=EPOCHS)
    trainer.add_callback(print_epoch)

    loss = float(trainer.train()["final_loss"])
    print(f"{compared(loss)}, {model.count_params():,} parameters", flush=True)
    return loss


def shape_in(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that belong to the model."""
    names = ("embedding_dim", "num_reasoning_blocks", "num_moe_experts", "top_k_experts", "dropout_rate")
    return {name: params[name] for name in names}


def print_epoch(event: dict[str, Any]) -> None:
    """A line for each epoch."""
    if event["event"] == "epoch_end":
        print(f"epoch={event['epoch']} loss={event['train_loss']:.4f} val_loss={event['val_loss']:.4f}", flush=True)


def compared(loss: float) -> str:
    """A loss in nats per byte as bits per byte, beside a uniform guess and the frequencies of single bytes."""
    return f"bits per byte: uniform {math.log2(256):.3f}, unigram {unigram_bits():.3f}, model {loss / math.log(2):.3f}"


def unigram_bits() -> float:
    """The bits of a held-out byte under the frequencies of the training text, with the trainer's split."""
    split = split_documents(load_documents("python-docs"), share=HELD_OUT_SHARE, seed=SPLIT_SEED)
    training = _counts(without_leaks(split.training, split.held_out)) + 1.0
    held_out = _counts(split.held_out)
    return float(-(held_out / held_out.sum()) @ np.log2(training / training.sum()))


def stay_on_one_core() -> None:
    """One thread for TensorFlow: as many trials as there are cores share this machine."""
    with contextlib.suppress(RuntimeError):  # in process, the second trial finds the runtime already initialised
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _counts(documents: list[str] | tuple[str, ...]) -> np.ndarray:
    ids = np.frombuffer("\0".join(documents).encode(), np.uint8)
    return np.bincount(ids, minlength=256).astype(float)
