"""One training from its first step, or from where a checkpoint stands, to its summary.

Owns the order of things: steps, validation, who hears of it, what is saved. What is trained on was settled before
(`plan`), how a step is done is settled elsewhere (`step`).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highnoon.lm.data.order import epoch_order
from highnoon.lm.data.pipeline import training_batches, validation_batches
from highnoon.lm.training.learner import Learner
from highnoon.lm.training.listeners import Listener
from highnoon.lm.training.plan import StagePlan
from highnoon.lm.training.progress import Progress
from highnoon.lm.training.schedule import Schedule
from highnoon.lm.training.stopwatch import Stopwatch
from highnoon.shared.domain.errors import TrainingDiverged


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Where and how often, in steps; `state` is what does not change during the training."""

    folder: Path
    interval: int
    state: dict[str, Any]


class TrainingRun:
    """`run` once. Raises TrainingDiverged, and whatever a listener raises."""

    def __init__(
        self,
        learner: Learner,
        plans: Sequence[StagePlan],
        schedule: Schedule,
        listeners: Sequence[Listener],
        progress: Progress,
        *,
        prefetch: Callable[[], int | None],
        check_interval: int,
        eval_interval: int,
        saving: Saving | None,
    ) -> None:
        self._learner = learner
        self._plans = plans
        self._schedule = schedule
        self._listeners = listeners
        self._progress = progress
        # Asked at each epoch: under memory pressure it becomes smaller.
        self._prefetch = prefetch
        self._check_interval = check_interval
        self._eval_interval = eval_interval
        self._saving = saving
        self._stopwatch = Stopwatch()

    def run(self) -> dict[str, Any]:
        """All stages that are left; returns the summary of all, those before a resume included."""
        with _cheap_collections():
            self._tell(lambda listener: listener.train_begins(self._learner.model, len(self._progress.history)))
            while self._progress.stage < len(self._plans) and not self._asked_to_stop():
                self._run_stage(self._plans[self._progress.stage])
            self._tell(lambda listener: listener.train_ends())
        return self._progress.summary()

    def _run_stage(self, plan: StagePlan) -> None:
        progress = self._progress
        while not self._stage_ends(plan):
            self._run_epoch(plan)
            if not self._stage_ends(plan):
                self._save()
        record = progress.finish_stage(plan.name)
        self._tell(lambda listener: listener.stage_completes(record))
        self._save()

    def _run_epoch(self, plan: StagePlan) -> None:
        progress = self._progress
        train_loss = self._train(plan)
        val_loss = self._validate(plan)
        progress.finish_epoch(plan.name, train_loss, val_loss)
        self._learner.train_step.set_sums(0.0, 0.0)
        progress.best.update(val_loss, plan.options.early_stopping_min_delta)
        exhausted = progress.best.exhausted(plan.options.early_stopping_patience)
        progress.stage_over = exhausted and progress.epoch < plan.epochs
        gc.collect()
        self._tell(lambda listener: listener.epoch_ends(dict(progress.history[-1])))

    def _stage_ends(self, plan: StagePlan) -> bool:
        return self._progress.epoch >= plan.epochs or self._progress.stage_over or self._asked_to_stop()

    def _train(self, plan: StagePlan) -> float:
        """The rest of the epoch under way; returns its mean training loss."""
        progress = self._progress
        self._tell(lambda listener: listener.epoch_begins(plan.name, progress.epoch, plan.tokens_per_step))
        self._stopwatch.start()
        for inputs, labels in self._batches(plan):
            share = self._schedule.share(progress.total_steps)
            rate = plan.options.learning_rate * share
            self._learner.train_step(inputs, labels, rate, plan.weight, progress.total_steps)
            self._stopwatch.lap(inputs.shape, self._mean_loss)
            self._step_ended(plan)
        train_loss = self._checked_loss()
        tokens, seconds = self._stopwatch.stop()
        progress.stage_tokens += tokens
        progress.stage_s += seconds
        return train_loss

    def _step_ended(self, plan: StagePlan) -> None:
        progress = self._progress
        progress.epoch_step += 1
        progress.stage_steps += 1
        progress.total_steps += 1
        step, within = progress.total_steps, progress.epoch_step < plan.steps_per_epoch
        self._tell(lambda listener: listener.step_ends(step, self._mean_loss))
        if step % self._check_interval == 0:
            self._checked_loss()
        if within and step % self._eval_interval == 0:
            with self._stopwatch.paused():
                val_loss = self._validate(plan)
            self._tell(lambda listener: listener.validated(step, val_loss))
        if within and self._saving is not None and step % self._saving.interval == 0:
            with self._stopwatch.paused():
                self._save()

    def _batches(self, plan: StagePlan) -> Any:
        options, progress = plan.options, self._progress
        seed = (options.seed, progress.stage, progress.epoch)
        return training_batches(
            plan.training,
            epoch_order(plan.counts, plan.shares, plan.draws, seed),
            batch_size=options.batch_size,
            accumulation=options.gradient_accumulation_steps,
            first_step=progress.epoch_step,
            prefetch_buffer_size=self._prefetch(),
        )

    def _validate(self, plan: StagePlan) -> float:
        """The mean loss over the held-out text. Raises TrainingDiverged when it is no number."""
        loss_sum = label_count = 0.0
        batches = validation_batches(
            plan.held_out,
            batch_size=plan.options.batch_size,
            windows=plan.held_out_windows,
            prefetch_buffer_size=self._prefetch(),
        )
        for inputs, labels in batches:
            loss, count = self._learner.validation_step(inputs, labels)
            loss_sum += loss
            label_count += count
        val_loss = loss_sum / label_count
        if not math.isfinite(val_loss):
            raise self._diverged("the validation loss is no number", self._progress.total_steps)
        return val_loss

    def _mean_loss(self) -> float:
        loss_sum, label_count = self._learner.train_step.sums()
        return loss_sum / max(label_count, 1.0)

    def _checked_loss(self) -> float:
        """The epoch's mean loss so far. Raises TrainingDiverged."""
        began = self._learner.train_step.diverged_at
        if began is not None:
            raise self._diverged("the training loss or its gradient is no finite number", began)
        return self._mean_loss()

    def _diverged(self, what: str, step: int) -> TrainingDiverged:
        plan = self._plans[self._progress.stage]
        rate = plan.options.learning_rate * self._schedule.share(step)
        return TrainingDiverged(
            f"{what} from step {step} on (stage {plan.name!r}, epoch {self._progress.epoch}, "
            f"learning rate there {rate:.3g}). A lower learning_rate, more warmup_steps or a lower gradient_clip help.",
            step,
        )

    def _save(self) -> None:
        if self._saving is None:
            return
        self._checked_loss()
        path = self._learner.save_step(self._saving.folder, self._progress, self._saving.state)
        self._tell(lambda listener: listener.checkpoint_saved(str(path), self._progress.total_steps))

    def _tell(self, event: Callable[[Listener], None]) -> None:
        for listener in self._listeners:
            event(listener)

    def _asked_to_stop(self) -> bool:
        return any(listener.asks_to_stop() for listener in self._listeners)


@contextmanager
def _cheap_collections() -> Iterator[None]:
    """What lived before the training is not searched after each epoch: TensorFlow alone makes that 0.2 s each time."""
    if gc.get_freeze_count():  # somebody froze it for a reason of their own, and unfreezing would undo that
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
