"""What a trial is worth: its loss, made worse by its size where the study has a parameter budget. Pure.

    minimize   score = loss  * (1 + lambda_efficiency * params / param_budget)
    maximize   score = value / (1 + lambda_efficiency * params / param_budget)

Without a budget the score is the loss. The front of loss and size is the choice without any lambda. What becomes of a
trial that does not report its number of parameters is decided by `attempt`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from highnoon.shared.domain.errors import InvalidObjectiveResult, MissingParamCount


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How a study turns losses into scores: on the same scale for reports, pruned values and results.

    A budget is no limit, and a larger model may win; with `param_budget_hard` it may not. `objectives` are empty where
    there is one, which is scored; several are stored as they are. `constraints` are bounds on metrics (`goals`).
    """

    direction: Literal["minimize", "maximize"] = "minimize"
    param_budget: int | None = None
    lambda_efficiency: float = 0.1
    param_budget_hard: bool = False
    objectives: Mapping[str, str] = field(default_factory=dict)
    constraints: Mapping[str, str] = field(default_factory=dict)
    last_report_counts: bool = False
    """Whether a trial that is ended at a report is complete with its value: others go on from there."""

    @property
    def directions(self) -> tuple[str, ...]:
        """Of each objective."""
        return tuple(self.objectives.values()) or (self.direction,)

    def score(self, loss: float, params: int | None) -> float:
        """The score; `loss` itself without a budget.

        Raises MissingParamCount without a count, and InvalidObjectiveResult where size would count for nothing or
        the wrong way round. NaN stays NaN, and the worst infinity stays the worst.
        """
        if self.param_budget is None:
            return loss
        if params is None:
            raise MissingParamCount(_COUNT_IT)
        if self.lambda_efficiency == 0:
            return loss
        self._refuse_what_size_would_not_worsen(loss)
        factor = 1.0 + self.lambda_efficiency * (params / self.param_budget)
        return loss / factor if self.direction == "maximize" else loss * factor

    def excess(self, params: int) -> float | None:
        """How far beyond a hard budget, as a share of it (0.5: half too large); None when it is within, or not hard."""
        if self.param_budget is None or not self.param_budget_hard or params <= self.param_budget:
            return None
        return params / self.param_budget - 1.0

    @property
    def is_on(self) -> bool:
        """Whether trials must say how large they are."""
        return self.param_budget is not None

    @property
    def terms(self) -> dict[str, Any] | None:
        """What two trials must share to be compared, as JSON; None when the score is the loss, and every one counts."""
        terms: dict[str, Any] = {}
        if self.param_budget is not None:
            terms = {"param_budget": self.param_budget, "lambda_efficiency": self.lambda_efficiency}
        return {**terms, **({"constraints": dict(self.constraints)} if self.constraints else {})} or None

    def __str__(self) -> str:
        if self.objectives:
            return "several objectives: " + ", ".join(f"{way} {name}" for name, way in self.objectives.items())
        if self.param_budget is None:
            return "efficiency is off: no param_budget, so the score is the loss"
        sign = "value /" if self.direction == "maximize" else "loss *"
        hard = ", larger is infeasible" if self.param_budget_hard else ""
        return f"score = {sign} (1 + {self.lambda_efficiency:g} * params / {self.param_budget:,}){hard}"

    def _refuse_what_size_would_not_worsen(self, loss: float) -> None:
        if self.direction == "maximize":
            if not loss < 0 or loss == -math.inf:
                return
            why = "divided by more than 1 it comes nearer to 0, so a larger model would win"
        else:
            if not loss <= 0:
                return
            why = "times more than 1 " + (
                "it stays 0, so size would not count" if loss == 0 else "it falls, so a larger model would win"
            )
        wanted = "a value >= 0" if self.direction == "maximize" else "a loss > 0"
        raise InvalidObjectiveResult(
            f"{loss:g} cannot be scored by size under {self.direction}: {why}. Give {wanted}, or leave param_budget "
            "out and choose from hpo.pareto_front(), or make loss and params two `objectives`"
        )


UNSCORED = Scoring()

_COUNT_IT = (
    "param_budget is set, so trials are scored by size, and this one has not reported how many parameters it has. "
    "Build the model with hn.create_model, or call hpo.report_params(n) before the first report, "
    'or, in an objective that reports nothing, return {"loss": ..., "params": ...}'
)
