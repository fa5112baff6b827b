"""The trial as the whole system sees it: reports, outcomes and a frozen read model.

Owns no connection: Optuna's own trial stays behind `studies.py`, rows stay behind `ledger`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from shared.states import Ending, TrialState

ParamValue = bool | int | float | str | None
"""What a search space can propose: everything that JSON and Optuna's categorical distribution can hold."""

Params = dict[str, ParamValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One intermediate value, as the objective reported it at `step`."""

    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended: decided once, then persisted as it is.

    `value` is what Optuna is told (None unless COMPLETED, or PRUNED with a report). `cause` is a stable
    class for machines (`exception`, `exited`, `signal`, `timeout`, ...), `message` one line for people.
    """

    ending: Ending
    value: float | None = None
    cause: str | None = None
    message: str = ""
    traceback: str = ""
    exit_status: int | None = None
    signal: str | None = None
    peak_rss_bytes: int | None = None
    duration_s: float | None = None
    log_tail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only; JSON has no infinity, so that becomes text."""
        value = self.value if self.value is None or math.isfinite(self.value) else str(self.value)
        return {**asdict(self), "ending": str(self.ending), "value": value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_json`; keys of a newer version are dropped. Raises KeyError without an ending."""
        known = {f.name for f in fields(cls)}
        value = data.get("value")
        read = {"ending": Ending(data["ending"]), "value": None if value is None else float(value)}
        return cls(**{**{k: v for k, v in data.items() if k in known}, **read})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of a study, read from Optuna. `number` is Optuna's; `value` is what the sampler was told."""

    number: int
    state: TrialState
    params: Params
    value: float | None = None
    reports: tuple[Report, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float | None:
        """Wall-clock seconds from start to end; None while it runs."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()
