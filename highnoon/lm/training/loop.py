"""The training loop: from the first step, or a checkpoint's, to the summary.

Owns the order of steps, validation, callbacks and checkpoints. `plan` decides what is trained on, `train_state`
computes a step.

Keras' `fit` is not used: it has no position within an epoch that a checkpoint could continue from, no validation and
no checkpoint between two steps of an epoch, and sums losses in float32.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from highnoon.lm.data.windows import Order, epoch_order, prefetched, training_batches, validation_batches
from highnoon.lm.training.callbacks import TrainingCallback
from highnoon.lm.training.checkpoint_folder import CheckpointFolder
from highnoon.lm.training.checkpointing import Progress
from highnoon.lm.training.options import Intervals
from highnoon.lm.training.plan import Schedule, StagePlan
from highnoon.lm.training.train_state import TrainState
from highnoon.shared.domain.errors import TrainingDiverged, TrialPruned

_log = logging.getLogger("highnoon")


@dataclass(kw_only=True)
class TrainingLoop:
    """Call `run` once. Raises TrainingDiverged, and what a callback raises."""

    train_state: TrainState
    plans: Sequence[StagePlan]
    schedule: Schedule
    callbacks: Sequence[Any]
    progress: Progress
    intervals: Intervals
    prefetch: Callable[[], int | None]
    """Called at each epoch: under memory pressure it returns less."""
    checkpoints: CheckpointFolder | None
    """None: none are written."""
    state: Mapping[str, Any]
    """What of a checkpoint does not change during the training."""

    def __post_init__(self) -> None:
        self._own_callbacks = [callback for callback in self.callbacks if isinstance(callback, TrainingCallback)]
        self._reads_each_loss = any(map(_reads_each_loss, self.callbacks))
        self._batch = 0
        self._timer = ThroughputTimer()
        self.plan = self.plans[0]
        """The plan of the current stage."""

    def run(self) -> dict[str, Any]:
        """All stages that are left; returns the summary of all, those before a resume included."""
        with _cheap_collections(), self._known_to_callbacks():
            while self.progress.stage < len(self.plans) and not self._is_stopped():
                self.plan = self.plans[self.progress.stage]
                self._run_stage()
            for callback in self.callbacks:
                callback.on_train_end({})
        return self.progress.summary()

    def mean_loss(self) -> float:
        """The mean training loss of the current epoch so far. Waits for the device."""
        return self.train_state.mean_loss()

    @contextmanager
    def _known_to_callbacks(self) -> Iterator[None]:
        model = self.train_state.model
        model.stop_training = False
        for callback in self._own_callbacks:
            callback.loop = self
        try:
            for callback in self.callbacks:
                callback.set_model(model)
                callback.on_train_begin({})
            yield
        finally:  # the trainer keeps its callbacks, and the loop has all the text
            for callback in self._own_callbacks:
                del callback.loop

    def _is_stopped(self) -> bool:
        """True when a callback has set Keras' flag."""
        return bool(self.train_state.model.stop_training)

    def _run_stage(self) -> None:
        # Once for a stage, not for an epoch: TensorFlow traces four functions for each dataset of ours.
        plan, options = self.plan, self.plan.options
        accumulation = options.gradient_accumulation_steps
        self._training = training_batches(
            plan.training, self._position, batch_size=options.batch_size, accumulation=accumulation
        )
        self._validation = validation_batches(
            plan.held_out, batch_size=options.batch_size, windows=plan.held_out_windows
        )
        while not self._stage_ends():
            self._run_epoch()
            if not self._stage_ends():
                self._save()
        record = self.progress.finish_stage(self.plan.name)
        for callback in self._own_callbacks:
            callback.on_stage_end(record)
        self._save()

    def _run_epoch(self) -> None:
        plan, progress = self.plan, self.progress
        train_loss = self._train()
        val_loss = self._validate()
        progress.finish_epoch(plan.name, train_loss, val_loss)
        self.train_state.set_sums(0.0, 0.0)
        progress.best.update(val_loss, plan.options.early_stopping_min_delta)
        exhausted = progress.best.exhausted(plan.options.early_stopping_patience)
        progress.stage_over = exhausted and progress.epoch < plan.epochs
        gc.collect()
        try:
            for callback in self.callbacks:
                callback.on_epoch_end(len(progress.history) - 1, {"loss": train_loss, "val_loss": val_loss})
        except TrialPruned:
            try:
                self._save()  # another trial may go on from here
            except OSError as error:
                _log.warning("the checkpoint of a pruned training could not be written: %s", error)
            raise

    def _stage_ends(self) -> bool:
        return self.progress.epoch >= self.plan.epochs or self.progress.stage_over or self._is_stopped()

    def _train(self) -> float:
        """Trains the rest of the current epoch; returns its mean training loss."""
        plan, progress = self.plan, self.progress
        self._batch = 0
        for callback in self.callbacks:
            callback.on_epoch_begin(len(progress.history), {})
        self._timer.start()
        for inputs, labels in prefetched(self._training, self.prefetch()):
            share = self.schedule.share(progress.total_steps)
            rate = plan.options.learning_rate * share
            self.train_state.train(inputs, labels, rate, plan.weight, progress.total_steps)
            self._timer.record_step(inputs.shape, self.mean_loss)
            self._finish_step()
            if self._is_stopped():  # within an epoch, as in `fit`: what is trained of it is validated
                break
        train_loss = self._checked_loss()
        tokens, seconds = self._timer.stop()
        progress.stage_tokens += tokens
        progress.stage_s += seconds
        return train_loss

    def _finish_step(self) -> None:
        progress = self.progress
        progress.epoch_step += 1
        progress.stage_steps += 1
        progress.total_steps += 1
        step, within = progress.total_steps, progress.epoch_step < self.plan.steps_per_epoch
        logs = {"loss": self.mean_loss()} if self._reads_each_loss else {}
        for callback in self.callbacks:
            callback.on_train_batch_end(self._batch, logs)
        self._batch += 1
        if step % self.intervals.log_interval == 0:
            self._checked_loss()
        if within and step % self.intervals.eval_interval == 0:
            with self._timer.paused():
                val_loss = self._validate()
            for callback in self._own_callbacks:
                callback.on_validation(step, val_loss)
        if within and step % self.intervals.checkpoint_interval == 0:
            with self._timer.paused():
                self._save()

    def _position(self) -> tuple[Order, int]:
        """The order of the current epoch, and how many steps of it are done."""
        plan, progress = self.plan, self.progress
        seed = (plan.options.seed, progress.stage, progress.epoch)
        return epoch_order(plan.counts, plan.shares, plan.draws, seed), progress.epoch_step

    def _validate(self) -> float:
        """The mean loss over the held-out text. Raises TrainingDiverged when it is not finite."""
        loss_sum = label_count = 0.0
        for inputs, labels in prefetched(self._validation, self.prefetch()):
            loss, count = self.train_state.validate(inputs, labels)
            loss_sum += loss
            label_count += count
        val_loss = loss_sum / label_count
        if not math.isfinite(val_loss):
            raise self._diverged("the validation loss is not a finite number", self.progress.total_steps)
        return val_loss

    def _checked_loss(self) -> float:
        """The epoch's mean loss so far. Raises TrainingDiverged."""
        began = self.train_state.diverged_at
        if began is not None:
            raise self._diverged("the training loss or its gradient is not a finite number", began)
        return self.mean_loss()

    def _diverged(self, what: str, step: int) -> TrainingDiverged:
        plan = self.plan
        rate = plan.options.learning_rate * self.schedule.share(step)
        return TrainingDiverged(
            f"{what} from step {step} on (stage {plan.name!r}, epoch {self.progress.epoch}, "
            f"learning rate there {rate:.3g}). A lower learning_rate, more warmup_steps or a lower gradient_clip help.",
            step,
        )

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        self._checked_loss()
        step, train_state = self.progress.total_steps, self.train_state
        state = {**self.state, "progress": self.progress.to_json(train_state.sums())}
        path = self.checkpoints.write(step, train_state.model, train_state.optimizer, state)
        for callback in self._own_callbacks:
            callback.on_checkpoint_saved(str(path), step)


def _reads_each_loss(callback: Any) -> bool:
    """True for a callback that overrides Keras' end of a batch, unless it has `reads_logs = False`."""
    base = keras.callbacks.Callback
    overrides = type(callback).on_train_batch_end is not base.on_train_batch_end
    overrides |= type(callback).on_batch_end is not base.on_batch_end
    return overrides and getattr(callback, "reads_logs", True)


class ThroughputTimer:
    """Counts the tokens of an epoch and their time, without compiling (the first step of a shape) and pauses."""

    def __init__(self) -> None:
        self._compiled: set[tuple[int, ...]] = set()
        self._began = 0.0
        self._tokens = 0

    def start(self) -> None:
        """At the beginning of an epoch, or of what is left of it."""
        self._began = time.perf_counter()
        self._tokens = 0

    def record_step(self, shape: Sequence[int], wait: Callable[[], object]) -> None:
        """After each step; `wait` returns once the device has finished it, and is called where that matters."""
        if tuple(shape) in self._compiled:
            self._tokens += math.prod(shape)
        else:
            wait()
            self._compiled.add(tuple(shape))
            self._began = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the block."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def stop(self) -> tuple[int, float]:
        """Tokens and seconds; no seconds without tokens. The device must have finished."""
        return self._tokens, time.perf_counter() - self._began if self._tokens else 0.0


@contextmanager
def _cheap_collections() -> Iterator[None]:
    """Excludes older objects from the collection after each epoch: with TensorFlow's it would take 0.2 s each time."""
    if gc.get_freeze_count():  # frozen by the caller for another reason, which unfreezing would undo
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
