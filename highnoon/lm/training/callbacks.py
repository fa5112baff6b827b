"""The callbacks of a training: Keras' own kind, with three more events, for the guide's functions, study, log and bar.

An exception of a callback ends the training: a TrialPruned reaches the objective's caller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from highnoon import current_trial
from highnoon.lm.training.best_model import BestModel
from highnoon.shared.domain.errors import InvalidInput, TrialPruned
from highnoon.shared.runtime.logs import event

if TYPE_CHECKING:
    from highnoon.lm.training.loop import TrainingLoop

logger = logging.getLogger("highnoon")

_REDRAW_S = 0.5
"""Reading a loss waits for the device, so that it is done seldom."""


class TrainingCallback(keras.callbacks.Callback):
    """A Keras callback that also gets the events below, and the `loop` that calls it, set before `on_train_begin`.

    As for every callback, epochs are counted over all stages, and `on_epoch_begin` is also called for an epoch that a
    resume continues.
    """

    reads_logs = False
    """False: `on_train_batch_end` gets no loss, so that the training need not wait for the device at each step."""

    loop: TrainingLoop

    def on_validation(self, step: int, val_loss: float) -> None:
        """After a validation within an epoch."""

    def on_stage_end(self, record: dict[str, Any]) -> None:
        """`record` is the stage's record in the summary."""

    def on_checkpoint_saved(self, path: str, step: int) -> None:
        """The checkpoint is whole."""


class FunctionCallback(TrainingCallback):
    """Calls a function with a dict that has the key `event`."""

    def __init__(self, function: Callable[[dict[str, Any]], object]) -> None:
        super().__init__()
        self._function = function

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._function({"event": "epoch_end", **self.loop.progress.history[-1]})

    def on_stage_end(self, record: dict[str, Any]) -> None:
        self._function({"event": "stage_complete", "stage": record["name"], "metrics": dict(record)})

    def on_checkpoint_saved(self, path: str, step: int) -> None:
        self._function({"event": "checkpoint_saved", "path": path, "step": step})


class StudyCallback(TrainingCallback):
    """Reports each epoch's validation loss to the running trial. Raises TrialPruned, and NoTrialRunning.

    Also reports the epochs before a resume: a resumed attempt is a new Optuna trial, and needs the whole curve. With
    `best_model` the model of a stage's best epoch so far is kept as the trial's artifact.
    """

    def __init__(self, best_model: BestModel | None = None) -> None:
        super().__init__()
        self._best_model = best_model

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._best_model is not None:
            self._best_model.begin(self.loop.progress.history)
        for epoch, entry in enumerate(self.loop.progress.history):
            current_trial.report(entry["val_loss"], epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        history = self.loop.progress.history
        val_loss = history[-1]["val_loss"]
        # First: before the first checkpoint a report packs what is there, and would pack this model alone.
        current_trial.report(val_loss, epoch)
        if self._best_model is not None:
            self._best_model.end_epoch(self.model, history)
        if current_trial.should_prune():
            raise TrialPruned(f"not promising at epoch {epoch}: validation loss {val_loss:.4f}")

    def on_checkpoint_saved(self, path: str, step: int) -> None:
        if self._best_model is not None:
            self._best_model.checkpoint_saved(self.loop.progress.history)
        current_trial.checkpoint_saved()


class LogCallback(TrainingCallback):
    """Logs one line every `interval` steps, and one for each epoch, stage and checkpoint."""

    def __init__(self, interval: int) -> None:
        super().__init__()
        self._interval = interval

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        step = self.loop.progress.total_steps
        if step % self._interval == 0 and logger.isEnabledFor(logging.INFO):
            self._log("step", step=step, train_loss=self.loop.mean_loss())

    def on_validation(self, step: int, val_loss: float) -> None:
        self._log("validation", step=step, val_loss=val_loss)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        entry = self.loop.progress.history[-1]
        event(logger, "epoch", **{key: entry[key] for key in ("stage", "epoch", "train_loss", "val_loss")})

    def on_stage_end(self, record: dict[str, Any]) -> None:
        event(logger, "stage", **record)

    def on_checkpoint_saved(self, path: str, step: int) -> None:
        event(logger, "checkpoint", step=step, path=path)

    def _log(self, action: str, **numbers: Any) -> None:
        event(logger, action, stage=self.loop.plan.name, epoch=self.loop.progress.epoch, **numbers)


class ProgressBar(TrainingCallback):
    """Shows all steps with both losses, speed and the time left. For a terminal only; `close` restores it."""

    def __init__(self, planned_steps: int, steps_done: int, console: Console) -> None:
        super().__init__()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} loss={task.fields[loss]} val_loss={task.fields[val_loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        fields: dict[str, Any] = {"loss": "-", "val_loss": "-", "speed": "-"}
        self._task: TaskID = self._bar.add_task("training", total=planned_steps, completed=steps_done, **fields)
        self._tokens = 0
        self._drawn_at = time.perf_counter()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._bar.update(self._task, description=f"{self.loop.plan.name} {self.loop.progress.epoch}")
        self._tokens = 0
        self._drawn_at = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._tokens += self.loop.plan.tokens_per_step
        self._bar.update(self._task, completed=self.loop.progress.total_steps)
        if time.perf_counter() - self._drawn_at > _REDRAW_S:
            mean, now = self.loop.mean_loss(), time.perf_counter()
            speed = self._tokens / (now - self._drawn_at)
            self._tokens, self._drawn_at = 0, now
            self._bar.update(self._task, loss=f"{mean:.4f}", speed=f"{speed:,.0f}")

    def on_validation(self, step: int, val_loss: float) -> None:
        self._bar.update(self._task, val_loss=f"{val_loss:.4f}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        losses: dict[str, Any] = {name: f"{value:.4f}" for name, value in (logs or {}).items()}
        self._bar.update(self._task, **losses)

    def close(self) -> None:
        """However the training ended."""
        self._bar.stop()


def callback_for(callback: Any) -> Any:
    """The Keras callback for what `add_callback` was given: one, or a function. Raises InvalidInput for others.

    The learning rate stays the schedule's: the model has no optimizer in which a callback could set it.
    """
    if isinstance(callback, (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)):
        message = f"is a {type(callback).__name__}, and the learning rate is the schedule's"
        hint = "Use learning_rate and warmup_steps, of the trainer or of a stage."
        raise InvalidInput.of("add_callback()", "callback", message, hint=hint)
    if hasattr(callback, "set_model") and hasattr(callback, "on_epoch_end"):
        return callback
    if callable(callback):
        return FunctionCallback(callback)
    message = "must be a function that takes a dict, or a Keras callback"
    raise InvalidInput.of("add_callback()", "callback", message, value=callback)
