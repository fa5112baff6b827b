"""Two studies side by side: results, costs, and how their specifications differ. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from highnoon.coordinator.cli.tables import aligned, time_cell, value_cell
from highnoon.shared.domain.trial import ParamValue, Trial
from highnoon.shared.views.studies import StudySummary, differences

_WIDEST = 26
_SCALE = {"objective": "objectives", "param_budget": "parameter budgets", "constraints": "constraints"}
"""Keys that decide what a value means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two studies, as the ledger and Optuna know it; `space` is what its trials were drawn from."""

    summary: StudySummary
    space: Mapping[str, Any]
    best: Trial | None
    trials: Sequence[Trial]
    first_start: float | None
    now: float

    @property
    def took_s(self) -> float | None:
        """From the start of its first attempt to its end, or until now; `started_at` is of its timeout's clock."""
        record = self.summary.record
        return None if record is None or self.first_start is None else (record.ended_at or self.now) - self.first_start

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was asked; of another program's study what its trials show of it."""
        return self.summary.spec or {"direction": self.summary.direction, "search_space": self.space}

    @property
    def median_s(self) -> float | None:
        """Of its completed trials."""
        known = [
            trial.duration_s for trial in self.trials if trial.state == "COMPLETE" and trial.duration_s is not None
        ]
        return median(known) if known else None

    @property
    def facts(self) -> dict[str, Any]:
        """For programs; most are rows for people, too."""
        study = self.summary
        return {
            "state": study.state,
            "direction": study.direction,
            "best_value": None if self.best is None else self.best.value,
            "best_trial": None if self.best is None else self.best.number,
            "trials": study.closed,
            "of": study.asked,
            "completed": study.complete,
            "pruned": study.pruned,
            "failed": study.failed,
            "attempts": study.attempts,
            "time_s": self.took_s,
            "median_trial_s": self.median_s,
            "best_params": {} if self.best is None else dict(self.best.params),
        }


def comparison_object(one: Side, other: Side) -> dict[str, Any]:
    """For programs."""
    return {
        "studies": {side.summary.name: side.facts for side in (one, other)},
        "differs": dict(differences([one.spec, other.spec])),
        "better": better(one, other),
    }


def comparison_table(one: Side, other: Side) -> list[str]:
    """Lines for people: results, best parameters, and differences of the specifications."""
    first, second = one.facts, other.facts
    rows: list[tuple[str, str, str]] = [("", _short(one.summary.name), _short(other.summary.name))]
    for name in ("state", "direction", "best_value", "best_trial", "completed", "pruned", "failed", "attempts"):
        if name == "completed":
            rows.append(("trials", f"{first['trials']}/{first['of']}", f"{second['trials']}/{second['of']}"))
        rows.append((name.replace("_", " "), _cell(first[name]), _cell(second[name])))
    rows.append(("time", time_cell(one.took_s), time_cell(other.took_s)))
    rows.append(("median trial", time_cell(one.median_s), time_cell(other.median_s)))
    rows += _section("best parameters", _side_by_side(first["best_params"], second["best_params"]))
    rows += _section("asked differently", differences([one.spec, other.spec]))
    return [*aligned(rows), "", _conclusion(one, other)]


def better(one: Side, other: Side) -> str | None:
    """The name of the one with the better value; None where they are equal or cannot be compared."""
    values = [None if side.best is None else side.best.value for side in (one, other)]
    if values[0] is None or values[1] is None or _asks_otherwise(one, other) or values[0] == values[1]:
        return None
    first_wins = (values[0] > values[1]) == one.summary.maximize
    return (one if first_wins else other).summary.name


def _conclusion(one: Side, other: Side) -> str:
    different = _asks_otherwise(one, other)
    if different:
        return different
    values = [side.best.value for side in (one, other) if side.best is not None and side.best.value is not None]
    if len(values) < 2:
        return "they cannot be compared yet: not both have a completed trial"
    name = better(one, other)
    return (
        "they are equally good" if name is None else f"{name} is better by {value_cell(abs(values[0] - values[1]), 3)}"
    )


def _asks_otherwise(one: Side, other: Side) -> str:
    """Why their values measure different things; empty where they measure the same."""
    if "," in one.summary.direction + other.summary.direction:
        return "they cannot be compared: a study has several objectives"
    if one.summary.direction != other.summary.direction:
        return "they cannot be compared: one is minimised, the other maximised"
    for key, what in _SCALE.items():
        if (one.spec.get(key) or None) != (other.spec.get(key) or None):
            return f"they cannot be compared: they have different {what}"
    return ""


def _side_by_side(one: Mapping[str, ParamValue], other: Mapping[str, ParamValue]) -> Iterator[tuple[str, list[Any]]]:
    for name in dict.fromkeys([*one, *other]):
        yield name, [one.get(name), other.get(name)]


def _section(heading: str, rows: Iterator[tuple[str, list[Any]]]) -> list[tuple[str, str, str]]:
    found = [(f"  {_cell(key)}", _cell(first), _cell(second)) for key, (first, second) in rows]
    return [("", "", ""), (heading, "", ""), *found] if found else []


def _cell(value: object) -> str:
    return _short(json.dumps(value) if isinstance(value, list | dict) else value_cell(value))  # type: ignore[arg-type]


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
