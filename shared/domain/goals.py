"""Several objectives of one study, and what its results must keep: how both are written, and what they mean. Pure.

An objective is a name and a direction; the objective function returns a number for each. A constraint is a bound on a
metric: `{latency_ms = "<= 20"}`. How far a trial misses one is a share of the bound, so that several can be added up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from highnoon.shared.domain.correction_hints import word_for
from highnoon.shared.domain.errors import Problem, nearest
from highnoon.shared.domain.result_parsing import can_name

DIRECTIONS = ("minimize", "maximize")
MOST_OBJECTIVES = 8

MISSING = 1.0
"""By how much a trial misses a constraint on a metric that it does not have."""

_FARTHEST = 1e12
"""Of a miss: sums of it stay finite."""

_BOUND = re.compile(r"\s*(<=|>=)\s*([-+]?[0-9_.]+(?:[eE][-+]?[0-9]+)?)\s*")

_OBJECTIVES_EXAMPLE = 'Write for example objectives = {loss = "minimize", latency_ms = "minimize"}.'
_CONSTRAINTS_EXAMPLE = 'Write for example constraints = {latency_ms = "<= 20"}.'


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One side of a range, which includes the limit."""

    is_upper: bool
    limit: float

    def miss(self, value: float) -> float:
        """How far beyond the limit, as a share of it where that is not 0; 0 or less is within."""
        beyond = value - self.limit if self.is_upper else self.limit - value
        return max(-_FARTHEST, min(beyond / (abs(self.limit) or 1.0), _FARTHEST))

    @classmethod
    def parse(cls, written: object) -> Bound | None:
        """None for what is no bound."""
        found = _BOUND.fullmatch(written) if isinstance(written, str) else None
        try:
            limit = math.nan if found is None else float(found[2])
        except ValueError:
            return None
        return cls(is_upper=found[1] == "<=", limit=limit) if found and math.isfinite(limit) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """How a trial keeps its study's constraints: `misses` as Optuna has them, above 0 is infeasible."""

    misses: Mapping[str, float]
    reasons: tuple[str, ...] = ()
    """A sentence for each that it does not keep."""


def feasibility(constraints: Mapping[str, str], metrics: Mapping[str, float], *, is_complete: bool) -> Feasibility:
    """Of a trial with these metrics. A complete one that lacks a metric is infeasible; another one may get it yet."""
    misses: dict[str, float] = {}
    reasons = []
    for name, written in constraints.items():
        bound, value = Bound.parse(written), metrics.get(name)
        if bound is None:  # of a newer version
            continue
        if value is None or math.isnan(value):
            if is_complete:
                misses[name] = MISSING
                reasons.append(f"{name} was neither reported nor returned, and must be {written}")
            continue
        misses[name] = bound.miss(value)
        if misses[name] > 0:
            reasons.append(f"{name} is {value:g}, and must be {written}")
    return Feasibility(misses=misses, reasons=tuple(reasons))


def directions_of(spec: Mapping[str, Any]) -> list[str]:
    """Of each objective of a written study, whatever version wrote it; minimize for what is broken."""
    objectives = spec.get("objectives")
    ways = objectives.values() if objectives and isinstance(objectives, Mapping) else [spec.get("direction")]
    return [way if way in DIRECTIONS else "minimize" for way in ways]


def read_objectives(written: object) -> tuple[dict[str, str], list[Problem]]:
    """Names and directions in their order, and every mistake."""
    key = "objectives"
    if not isinstance(written, Mapping):
        hint = _OBJECTIVES_EXAMPLE
        return {}, [Problem(key=key, message="must be a table of names and directions", value=written, hint=hint)]
    problems = [*_misnamed(key, written)]
    for name, direction in written.items():
        if direction not in DIRECTIONS:
            message = "must be minimize or maximize"
            problems.append(
                Problem(key=f"{key}.{name}", message=message, value=direction, hint=word_for(direction, DIRECTIONS))
            )
    if len(written) == 1 and not problems:
        hint = f'Write direction = "{next(iter(written.values()))}".'
        problems.append(Problem(key=key, message="must be two or more", value=dict(written), hint=hint))
    elif not 1 < len(written) <= MOST_OBJECTIVES and not problems:
        message = f"must be two to {MOST_OBJECTIVES}"
        problems.append(Problem(key=key, message=message, value=dict(written), hint=_OBJECTIVES_EXAMPLE))
    return {} if problems else {str(name): str(direction) for name, direction in written.items()}, problems


def read_constraints(written: object) -> tuple[dict[str, str], list[Problem]]:
    """Metrics and their bounds, and every mistake."""
    key = "constraints"
    if not isinstance(written, Mapping):
        hint = _CONSTRAINTS_EXAMPLE
        if isinstance(written, list | tuple | str):
            hint = f"Constraints of parameters are param_constraints. {hint}"
        return {}, [Problem(key=key, message="must be a table of metrics and bounds", value=written, hint=hint)]
    problems = [*_misnamed(key, written)]
    for name, bound in written.items():
        if Bound.parse(bound) is None:
            message = 'must be "<=" or ">=" and a finite number'
            problems.append(Problem(key=f"{key}.{name}", message=message, value=bound, hint=_bound_for(bound)))
    return {} if problems else {str(name): " ".join(str(bound).split()) for name, bound in written.items()}, problems


def prune_on_problem(prune_on: object, objectives: Iterable[str]) -> Problem | None:
    """What is wrong with the objective that pruning goes by; None when nothing is."""
    names = list(objectives)
    if not names:
        message, hint = "is for a study with several objectives", "Leave it out: there is one."
        return Problem(key="prune_on", message=message, value=prune_on, hint=hint)
    if prune_on not in names:
        hint = nearest(str(prune_on), names)
        return Problem(key="prune_on", message="is none of the objectives", value=prune_on, hint=hint)
    return None


def _misnamed(key: str, written: Mapping[object, object]) -> Iterable[Problem]:
    for name in written:
        if not can_name(name):
            yield Problem(key=key, message="a name must be 1 to 100 printable characters", value=name)


def _bound_for(written: object) -> str:
    if isinstance(written, int | float) and not isinstance(written, bool):
        return f'Write "<= {written:g}" or ">= {written:g}".'
    for strict in ("<", ">"):
        number = str(written).strip().removeprefix(strict).removeprefix("=").strip()
        if str(written).strip().startswith(strict) and Bound.parse(f"<= {number}"):
            return f'Write "{strict}= {number}".'
    return _CONSTRAINTS_EXAMPLE
