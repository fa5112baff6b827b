"""Reports of a running trial that its pruner certainly lets pass: for them no question goes to the supervisor.

Computed by the supervisor with each answer "go on", and applied in the trial process, which imports no Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeReports:
    """By step and by the best value so far. Valid for a short time: other trials report and end meanwhile."""

    for_s: float
    """Seconds from the answer on."""
    before_step: int = 0
    """Up to this step, exclusive, any value is safe."""
    bounds: Mapping[int, float] = field(default_factory=dict)
    """By step: how bad the best value so far may be."""
    maximizes: bool = False

    def allow(self, step: int, best: float) -> bool:
        """Whether a trial goes on for certain whose newest report is at `step`; False also for NaN."""
        if step < self.before_step:
            return True
        bound = self.bounds.get(step)
        if bound is None:
            return False
        return best >= bound if self.maximizes else best <= bound

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only."""
        bounds = [[step, bound] for step, bound in self.bounds.items()]
        return {"for_s": self.for_s, "before_step": self.before_step, "bounds": bounds, "maximizes": self.maximizes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SafeReports:
        """The inverse of `to_json`."""
        return cls(**{**data, "bounds": dict(data["bounds"])})
