"""The learning rate of a step, as a share of its stage's peak: a linear warm-up, then half a cosine down to a tenth."""

from __future__ import annotations

import math
from dataclasses import dataclass

LAST_SHARE = 0.1

_LONGEST_DEFAULT_WARMUP = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Over all stages together; a warm-up longer than the plan never reaches the peak."""

    warmup_steps: int
    planned_steps: int

    def share(self, step: int) -> float:
        """Between 0 and 1 for the step with this number, counted from 0; steps beyond the plan get the last share."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        rest = max(self.planned_steps - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / rest, 1.0)
        return LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2


def default_warmup(planned_steps: int) -> int:
    """A tenth of the plan, and never more than 1,000 steps."""
    return min(planned_steps // 10, _LONGEST_DEFAULT_WARMUP)
