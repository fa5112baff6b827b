"""A model with everything that changes while it learns, and its way to disk and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highnoon.lm.training.checkpoints import restore_variables, write_checkpoint, write_whole
from highnoon.lm.training.optimizer import make_optimizer
from highnoon.lm.training.options import TrainingOptions
from highnoon.lm.training.precision import apply_precision
from highnoon.lm.training.progress import Progress
from highnoon.lm.training.step import TrainStep, ValidationStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """Built once for a model; its compiled steps are shared by all stages."""

    model: Any
    optimizer: Any
    train_step: TrainStep
    validation_step: ValidationStep

    @classmethod
    def of(cls, model: Any, options: TrainingOptions) -> Learner:
        """Builds the model if nobody has, and an optimizer for it."""
        import tensorflow as tf

        apply_precision(model, options.mixed_precision)
        if not model.built:
            model(tf.zeros((1, 1), tf.int32))
        optimizer = make_optimizer(model, options)
        jit_compile = jit_pays(model) if options.jit_compile is None else options.jit_compile
        return cls(
            model=model,
            optimizer=optimizer,
            train_step=TrainStep(model, optimizer, options.gradient_clip, jit_compile),
            validation_step=ValidationStep(model, jit_compile),
        )

    def restore(self, checkpoint: Path, progress: Progress) -> None:
        """Everything as the checkpoint has it. Raises UserInputError when it belongs to another model."""
        restore_variables(checkpoint, self.model, self.optimizer)
        self.train_step.begin()
        self.train_step.set_sums(progress.loss_sum, progress.label_count)

    def save(self, folder: Path, progress: Progress, state: dict[str, Any]) -> None:
        """Writes `folder` as one checkpoint. Raises OSError."""
        write_whole(folder, self.model, self.optimizer, self._whole(progress, state))

    def save_step(self, folder: Path, progress: Progress, state: dict[str, Any]) -> Path:
        """Adds a checkpoint to those in `folder` and returns its path. Raises OSError."""
        return write_checkpoint(folder, progress.total_steps, self.model, self.optimizer, self._whole(progress, state))

    def _whole(self, progress: Progress, state: dict[str, Any]) -> dict[str, Any]:
        progress.loss_sum, progress.label_count = self.train_step.sums()
        return {**state, "progress": progress.to_json()}


def jit_pays(model: Any) -> bool:
    """On a GPU, for a model whose layers all say that they can be; on a CPU compiling costs more than it saves."""
    import tensorflow as tf

    able = all(getattr(layer, "supports_jit", True) for layer in model._flatten_layers())
    return able and bool(tf.config.list_physical_devices("GPU"))
