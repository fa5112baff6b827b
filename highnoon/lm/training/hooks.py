"""What is called in the course of a training: the guide's functions, Keras callbacks, the study, the log, the bar.

An exception of a hook ends the training: a TrialPruned reaches the objective's caller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from highnoon import current_trial
from highnoon.memory import EnterpriseMemoryManager
from highnoon.shared.domain.errors import InvalidInput, Problem, TrialPruned, TrialStopped
from highnoon.shared.runtime.logs import event

logger = logging.getLogger("highnoon")

_REDRAW_S = 0.5
"""Reading a loss waits for the device, so that it is done seldom."""


class TrainingHook:
    """Does nothing; subclasses override what they need."""

    def on_train_begin(self, model: Any, epochs_done: int) -> None:
        """Once, before the first step; `epochs_done` counts the epochs of all stages before a resume."""

    def on_epoch_begin(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        """Also when an epoch is continued."""

    def on_step_end(self, step: int, loss: Callable[[], float]) -> None:
        """After each step; calling `loss` gives the epoch's mean so far, and waits for the device."""

    def on_validation_end(self, step: int, val_loss: float) -> None:
        """After a validation within an epoch."""

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        """`entry` is the epoch's record in the history."""

    def on_stage_end(self, record: dict[str, Any]) -> None:
        """`record` is the stage's record in the summary."""

    def on_checkpoint_saved(self, path: str, step: int) -> None:
        """The checkpoint is whole."""

    def on_train_end(self) -> None:
        """Once, after a training that nothing interrupted."""

    def wants_to_stop(self) -> bool:
        """Read after each epoch; True ends the training there."""
        return False


class FunctionHook(TrainingHook):
    """Calls a function with a dict that has the key `event`."""

    def __init__(self, function: Callable[[dict[str, Any]], object]) -> None:
        self._function = function

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        self._function({"event": "epoch_end", **entry})

    def on_stage_end(self, record: dict[str, Any]) -> None:
        self._function({"event": "stage_complete", "stage": record["name"], "metrics": dict(record)})

    def on_checkpoint_saved(self, path: str, step: int) -> None:
        self._function({"event": "checkpoint_saved", "path": path, "step": step})


class KerasHook(TrainingHook):
    """Calls a Keras callback: training, epochs and ends of batches. Epochs are counted over all stages.

    The learning rate stays the schedule's: the model has no optimizer in which a callback could set it.
    """

    def __init__(self, callback: Any) -> None:
        from keras.callbacks import Callback

        self._callback = callback
        self._uses_steps = type(callback).on_train_batch_end is not Callback.on_train_batch_end or (
            type(callback).on_batch_end is not Callback.on_batch_end
        )
        self._model: Any = None
        self._epoch = 0
        self._batch = 0

    def on_train_begin(self, model: Any, epochs_done: int) -> None:
        self._model = model
        self._epoch = epochs_done
        model.stop_training = False
        self._callback.set_model(model)
        self._callback.on_train_begin({})

    def on_epoch_begin(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        self._batch = 0
        self._callback.on_epoch_begin(self._epoch, {})

    def on_step_end(self, step: int, loss: Callable[[], float]) -> None:
        if self._uses_steps:
            self._callback.on_train_batch_end(self._batch, {"loss": loss()})
        self._batch += 1

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        logs = {"loss": entry["train_loss"], "val_loss": entry["val_loss"]}
        self._callback.on_epoch_end(self._epoch, logs)
        self._epoch += 1

    def on_train_end(self) -> None:
        self._callback.on_train_end({})

    def wants_to_stop(self) -> bool:
        return bool(self._model.stop_training)


class StudyHook(TrainingHook):
    """Reports each epoch's validation loss to the running trial. Raises TrialPruned, and NoTrialRunning.

    Also reports the epochs before a resume: a resumed attempt is a new Optuna trial, and needs the whole curve.
    """

    def __init__(self, history: Sequence[dict[str, Any]]) -> None:
        self._before = tuple(history)
        self._epoch = len(history)

    def on_train_begin(self, model: Any, epochs_done: int) -> None:
        for epoch, entry in enumerate(self._before):
            current_trial.report(entry["val_loss"], epoch)

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        current_trial.report(entry["val_loss"], self._epoch)
        if current_trial.should_prune():
            raise TrialPruned(f"not promising at epoch {self._epoch}: validation loss {entry['val_loss']:.4f}")
        self._epoch += 1


class MemoryHook(TrainingHook):
    """Runs the memory guard. Raises TrialStopped, after releasing what Keras holds, when the training must end."""

    def __init__(self, manager: EnterpriseMemoryManager) -> None:
        self._manager = manager

    def on_step_end(self, step: int, loss: Callable[[], float]) -> None:
        try:
            self._manager.step()
        except TrialStopped:
            self._manager.release()
            raise

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        self._manager.end_epoch()


class LogHook(TrainingHook):
    """Logs one line every `interval` steps, and one for each epoch and stage."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._stage = ""
        self._epoch = 0

    def on_epoch_begin(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        self._stage, self._epoch = stage, epoch

    def on_step_end(self, step: int, loss: Callable[[], float]) -> None:
        if step % self._interval == 0 and logger.isEnabledFor(logging.INFO):
            event(logger, "step", stage=self._stage, epoch=self._epoch, step=step, train_loss=loss())

    def on_validation_end(self, step: int, val_loss: float) -> None:
        event(logger, "validation", stage=self._stage, epoch=self._epoch, step=step, val_loss=val_loss)

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        event(logger, "epoch", **{key: entry[key] for key in ("stage", "epoch", "train_loss", "val_loss")})

    def on_stage_end(self, record: dict[str, Any]) -> None:
        event(logger, "stage", **record)

    def on_checkpoint_saved(self, path: str, step: int) -> None:
        event(logger, "checkpoint", step=step, path=path)


class ProgressBar(TrainingHook):
    """Shows all steps with both losses, speed and the time left. For a terminal only; `close` restores it."""

    def __init__(self, planned_steps: int, steps_done: int, console: Console) -> None:
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
        self._tokens_per_step = 0
        self._tokens = 0
        self._drawn_at = time.perf_counter()

    def on_train_begin(self, model: Any, epochs_done: int) -> None:
        self._bar.start()

    def on_epoch_begin(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        self._bar.update(self._task, description=f"{stage} {epoch}")
        self._tokens_per_step, self._tokens = tokens_per_step, 0
        self._drawn_at = time.perf_counter()

    def on_step_end(self, step: int, loss: Callable[[], float]) -> None:
        self._tokens += self._tokens_per_step
        self._bar.update(self._task, completed=step)
        if time.perf_counter() - self._drawn_at > _REDRAW_S:
            mean, now = loss(), time.perf_counter()
            speed = self._tokens / (now - self._drawn_at)
            self._tokens, self._drawn_at = 0, now
            self._bar.update(self._task, loss=f"{mean:.4f}", speed=f"{speed:,.0f}")

    def on_validation_end(self, step: int, val_loss: float) -> None:
        self._bar.update(self._task, val_loss=f"{val_loss:.4f}")

    def on_epoch_end(self, entry: dict[str, Any]) -> None:
        self._bar.update(self._task, loss=f"{entry['train_loss']:.4f}", val_loss=f"{entry['val_loss']:.4f}")

    def close(self) -> None:
        """However the training ended."""
        self._bar.stop()


def hook_for(callback: Any) -> TrainingHook:
    """The hook for what `add_callback` was given. Raises InvalidInput for neither a function nor a Keras callback."""
    if isinstance(callback, TrainingHook):
        return callback
    if hasattr(callback, "set_model") and hasattr(callback, "on_epoch_end"):
        return KerasHook(callback)
    if callable(callback):
        return FunctionHook(callback)
    message = "must be a function that takes a dict, or a Keras callback"
    raise InvalidInput("add_callback()", [Problem(key="callback", message=message, value=callback)])
