"""When a stage has stopped getting better: no validation loss lower by `min_delta` for `patience` epochs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class BestLoss:
    """The lowest validation loss of a stage, and for how many epochs nothing was really lower."""

    best: float = float("inf")
    beaten: float = float("inf")
    """The loss that counts: a smaller gain than `min_delta` lowers `best`, but buys no patience."""
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
