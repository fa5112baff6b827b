"""AdamW whose decay spares what decay only harms: norms, biases, embeddings, the decay rates and skips of a scan."""

from __future__ import annotations

from typing import Any

from highnoon.lm.training.options import TrainingOptions

_SPARED_NAMES = ("bias", "gamma", "beta", "scale", "gain", "embeddings", "a_log", "skip", "norm")


def make_optimizer(model: Any, options: TrainingOptions) -> Any:
    """A Keras AdamW, built for the model's trainable variables; the schedule sets its learning rate each step."""
    import keras

    optimizer = keras.optimizers.AdamW(
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        beta_1=options.adam_beta1,
        beta_2=options.adam_beta2,
        epsilon=options.adam_epsilon,
    )
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if not decays(v)])
    optimizer.build(model.trainable_variables)
    return optimizer


def decays(variable: Any) -> bool:
    """True for matrices that are no embedding; decided by shape and by the variable's own name."""
    name = str(variable.name).lower()
    return len(variable.shape) > 1 and not any(part in name for part in _SPARED_NAMES)
