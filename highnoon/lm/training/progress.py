"""How far a training has come, as a checkpoint stores it: position, sums of the current epoch, finished stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class BestLoss:
    """The lowest validation loss of a stage, and for how many epochs it has not improved by `min_delta`."""

    best: float = float("inf")
    beaten: float = float("inf")
    """The loss to improve on: a gain smaller than `min_delta` lowers `best`, and `stale_epochs` still grows."""
    stale_epochs: int = 0

    def update(self, loss: float, min_delta: float) -> None:
        """After each epoch."""
        self.best = min(self.best, loss)
        if loss < self.beaten - min_delta:
            self.beaten, self.stale_epochs = loss, 0
        else:
            self.stale_epochs += 1

    def exhausted(self, patience: int | None) -> bool:
        """True when the stage should end; never without a patience."""
        return patience is not None and self.stale_epochs >= patience


@dataclass(slots=True, kw_only=True)
class Progress:
    """`stage`, `epoch` and `epoch_step` are the next to do. A new stage resets what belongs to a stage."""

    stage: int = 0
    epoch: int = 0
    epoch_step: int = 0
    total_steps: int = 0
    loss_sum: float = 0.0
    label_count: float = 0.0
    stage_steps: int = 0
    stage_tokens: int = 0
    stage_s: float = 0.0
    """Seconds that these tokens took; validation and the first step of a shape, which compiles, are not in them."""
    stage_over: bool = False
    """True once early stopping has ended the current stage."""
    best: BestLoss = field(default_factory=BestLoss)
    history: list[dict[str, Any]] = field(default_factory=list)
    stages_completed: list[dict[str, Any]] = field(default_factory=list)

    def finish_epoch(self, stage: str, train_loss: float, val_loss: float) -> None:
        """Records the epoch and moves to the next."""
        self.history.append(
            {"stage": stage, "epoch": self.epoch, "loss": val_loss, "val_loss": val_loss, "train_loss": train_loss}
        )
        self.epoch += 1
        self.epoch_step = 0
        self.loss_sum = self.label_count = 0.0

    def finish_stage(self, stage: str) -> dict[str, Any]:
        """Records the stage, moves to the next, and returns the record."""
        last = self.history[-1]
        record = {
            "name": stage,
            "epochs": self.epoch,
            "final_loss": last["val_loss"],
            "val_loss": last["val_loss"],
            "train_loss": last["train_loss"],
            "best_loss": self.best.best,
            "early_stopped": self.stage_over,
            "tokens_per_second": self.stage_tokens / self.stage_s if self.stage_s else None,
            "steps": self.stage_steps,
        }
        self.stages_completed.append(record)
        self.stage += 1
        self.epoch = self.epoch_step = self.stage_steps = self.stage_tokens = 0
        self.stage_s = 0.0
        self.stage_over = False
        self.best = BestLoss()
        return record

    def summary(self) -> dict[str, Any]:
        """What `train` returns: plain values, the guide's keys among them."""
        return {
            "stages_completed": [dict(record) for record in self.stages_completed],
            "total_steps": self.total_steps,
            "history": [dict(entry) for entry in self.history],
            "final_loss": self.history[-1]["val_loss"] if self.history else None,
        }

    def to_json(self, sums: tuple[float, float]) -> dict[str, Any]:
        """Plain JSON values only; `sums` are those of the current epoch's losses and labels."""
        self.loss_sum, self.label_count = sums
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Progress:
        """The inverse of `to_json`."""
        return cls(**{**data, "best": BestLoss(**data["best"])})
