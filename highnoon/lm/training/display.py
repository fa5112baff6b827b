"""What a person sees of a training: log lines anywhere, and a bar on a terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from highnoon.lm.training.listeners import Listener
from highnoon.shared.runtime.logs import event

logger = logging.getLogger("highnoon")


class LogLines(Listener):
    """One line every `interval` steps, and one for each epoch and stage."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._stage = ""
        self._epoch = 0

    def epoch_begins(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        self._stage, self._epoch = stage, epoch

    def step_ends(self, step: int, loss: Callable[[], float]) -> None:
        if step % self._interval == 0 and logger.isEnabledFor(logging.INFO):
            event(logger, "step", stage=self._stage, epoch=self._epoch, step=step, train_loss=loss())

    def validated(self, step: int, val_loss: float) -> None:
        event(logger, "validation", stage=self._stage, epoch=self._epoch, step=step, val_loss=val_loss)

    def epoch_ends(self, entry: dict[str, Any]) -> None:
        losses = {key: entry[key] for key in ("stage", "epoch", "train_loss", "val_loss")}
        event(logger, "epoch", **losses)

    def stage_completes(self, record: dict[str, Any]) -> None:
        event(logger, "stage", **record)

    def checkpoint_saved(self, path: str, step: int) -> None:
        event(logger, "checkpoint", step=step, path=path)


class Bar(Listener):
    """A bar over all steps with both losses, speed and the time left; only on a terminal."""

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

    def train_begins(self, model: Any, epochs_done: int) -> None:
        self._bar.start()

    def epoch_begins(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        self._bar.update(self._task, description=f"{stage} {epoch}")
        self._tokens_per_step, self._tokens = tokens_per_step, 0
        self._drawn_at = time.perf_counter()

    def step_ends(self, step: int, loss: Callable[[], float]) -> None:
        self._tokens += self._tokens_per_step
        self._bar.update(self._task, completed=step)
        if time.perf_counter() - self._drawn_at > _REDRAW_S:
            mean, now = loss(), time.perf_counter()
            speed = self._tokens / (now - self._drawn_at)
            self._tokens, self._drawn_at = 0, now
            self._bar.update(self._task, loss=f"{mean:.4f}", speed=f"{speed:,.0f}")

    def validated(self, step: int, val_loss: float) -> None:
        self._bar.update(self._task, val_loss=f"{val_loss:.4f}")

    def epoch_ends(self, entry: dict[str, Any]) -> None:
        self._bar.update(self._task, loss=f"{entry['train_loss']:.4f}", val_loss=f"{entry['val_loss']:.4f}")

    def close(self) -> None:
        """Gives the terminal back, however the training ended."""
        self._bar.stop()


_REDRAW_S = 0.5
"""Reading a loss waits for the device, so that it is done seldom."""
