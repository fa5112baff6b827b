"""The trial as the whole system knows it: reports, outcomes and a frozen read model.

Owns no connection: Optuna's own trials and the rows of tables stay in `shared.store`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.states import RESERVED, Ending, TrialState

ParamValue = bool | int | float | str | None
"""What a search space can propose: everything that JSON and Optuna's categorical distribution can hold."""

Params = dict[str, ParamValue]

MetricHistory = Mapping[str, Sequence[tuple[int, float | str]]]
"""Logged metrics by name, each as (step, value) by step. As JSON has it: text for what is not finite."""

REPEATS, REPEATS_STD, REPEATS_WORST = "repeats", "repeats_std", "repeats_worst"
"""Metrics of a trial that runs its point several times: how often, and the spread and the worst of the losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One intermediate value, as the objective reported it at `step`."""

    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamCount:
    """How large a model is: all its parameters, and those that one input uses, where that is known."""

    total: int
    active: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTrace:
    """The memory of one attempt: its peak, the limit that counted, and the newest samples.

    A sample is (seconds since the attempt began, bytes in use), the newest last.
    """

    peak_bytes: int
    limit_bytes: int | None = None
    samples: tuple[tuple[float, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MemoryTrace:
        """The inverse of `to_json`."""
        samples = tuple((float(at_s), int(used)) for at_s, used in data["samples"])
        return cls(peak_bytes=data["peak_bytes"], limit_bytes=data["limit_bytes"], samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended: decided once, then persisted as it is.

    `value` is the score, which Optuna stores; None unless COMPLETED, or PRUNED or STOPPED with a report. A COMPLETED
    one of several objectives has `values` instead. `loss` is what the objective gave, the last report of one that ended
    early. `misses` is how far it is from each constraint of the study, above 0 where it does not keep it; `constraint`,
    above 0, is by how much a STOPPED one missed what it had to keep.
    `cause` is a Cause, the class of it for machines, `message` one line for people.
    """

    ending: Ending
    value: float | None = None
    values: tuple[float, ...] = ()
    loss: float | None = None
    params_count: int | None = None
    active_params: int | None = None
    constraint: float | None = None
    misses: Mapping[str, float] = field(default_factory=dict)
    cause: str | None = None
    message: str = ""
    traceback: str = ""
    exit_status: int | None = None
    signal: str | None = None
    peak_rss_bytes: int | None = None
    duration_s: float | None = None
    log_tail: str = ""
    memory: MemoryTrace | None = None
    metrics: Mapping[str, float | str] = field(default_factory=dict)
    """The last value of each, as JSON has it: text for what is not finite."""
    metric_history: MetricHistory = field(default_factory=dict)
    """The curves of some of them, bounded by `metric_history`."""
    artifacts: tuple[Artifact, ...] = ()
    """Files that are in the store by now: the trial's attributes name them from its end on."""

    @property
    def logged_value(self) -> str | float | None:
        """The value, or the values as text, for a log."""
        return " ".join(f"{value:.6g}" for value in self.values) or self.value

    @property
    def logged_loss(self) -> float | None:
        """The loss where it is another number than the value, for a log; None of a trial that has no value."""
        return None if self.value in (None, self.loss) else self.loss

    @property
    def is_feasible(self) -> bool:
        """Whether it keeps the study's constraints."""
        return not any(miss > 0 for miss in self.misses.values())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only; JSON has no infinity, so that becomes text."""
        numbers = {key: json_number(getattr(self, key)) for key in _NUMBERS}
        values = list(map(json_number, self.values))
        described = {**asdict(self), "ending": str(self.ending), "values": values, **numbers}
        del described["artifacts"]  # attributes of the trial have them, which a person may remove
        if not self.metric_history:
            del described["metric_history"]
        return described

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_json`; keys of a newer version are dropped. Raises KeyError without an ending."""
        known = {f.name for f in fields(cls)} - {"artifacts"}
        numbers = {key: None if data.get(key) is None else float(data[key]) for key in _NUMBERS}
        memory = MemoryTrace.from_json(data["memory"]) if data.get("memory") else None
        values = tuple(map(float, data.get("values") or ()))
        history = {name: tuple(map(tuple, points)) for name, points in data.get("metric_history", {}).items()}
        read = {"ending": Ending(data["ending"]), "memory": memory, "values": values, "metric_history": history}
        return cls(**{**{key: value for key, value in data.items() if key in known}, **numbers, **read})


_NUMBERS = ("value", "loss", "constraint")


def _number(value: object) -> float | None:
    if value in _NOT_FINITE and isinstance(value, str):
        return float(value)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


_NOT_FINITE = ("inf", "-inf", "nan")


def json_number(number: float | None) -> float | str | None:
    """JSON has no infinity and no NaN: they become the text "inf", "-inf" or "nan". None stays None."""
    return number if number is None or math.isfinite(number) else str(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of a study, read from Optuna. `number` is Optuna's; `value` is the score, as the sampler has it.

    `loss` is what the objective gave, equal to the value where nothing is scored by size. Reports are scores too.
    `values` are set for a study with several objectives: then there is no `value`. `constraints` are as Optuna has
    them, by name, above 0 where one is not kept.
    """

    number: int
    state: TrialState
    params: Params
    value: float | None = None
    values: tuple[float, ...] = ()
    loss: float | None = None
    params_count: int | None = None
    active_params: int | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_feasible(self) -> bool:
        """Whether it keeps every constraint; one without any does."""
        return not any(miss > 0 for miss in self.constraints.values())

    @property
    def metrics(self) -> dict[str, float]:
        """Its attributes that are numbers: what it logged or returned beside the loss, or a person has set."""
        found = {name: _number(value) for name, value in self.attrs.items() if not name.startswith(RESERVED)}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def duration_s(self) -> float | None:
        """Wall-clock seconds from start to end; None while it runs."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()
