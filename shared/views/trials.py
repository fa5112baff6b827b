"""Trials and attempts for readers: the meaning of attributes, the order of rows, objects for programs. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.extension import EXTENDS
from highnoon.shared.domain.front import minimized, pareto_front
from highnoon.shared.domain.metric_history import Curves
from highnoon.shared.domain.note import Note
from highnoon.shared.domain.states import CAUSE, ENDING, TrialState
from highnoon.shared.domain.trial import Trial, json_number
from highnoon.shared.domain.trial_environment import ENVIRONMENT, GIT, HOST

if TYPE_CHECKING:
    from highnoon.shared.store.attempt_records import AttemptPlace, AttemptRecord

T = TypeVar("T")

_RAN_IN = {ENVIRONMENT: "environment", GIT: "git"}
"""Of a trial that no coordinator runs; of others the attempts have it."""

_ENDED = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL})


def has_ended(trial: Trial) -> bool:
    """Whether nothing about it will change any more."""
    return trial.state in _ENDED


def cause_of(trial: Trial) -> str:
    """Why a trial ended early; empty when there is nothing to explain."""
    return str(trial.attrs.get(CAUSE) or "")


def ending_of(trial: Trial) -> str:
    """How its attempt ended, in the ledger's words; Optuna's where there are none."""
    return str(trial.attrs.get(ENDING) or trial.state.lower())


def best_of(trials: Iterable[Trial], *, maximize: bool) -> Trial | None:
    """The best completed and feasible trial that has a value; the first of equals."""
    valued = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value is not None and trial.is_feasible
    ]
    if not valued:
        return None
    return (max if maximize else min)(valued, key=lambda trial: trial.value or 0.0)


def by_objective(trials: Iterable[Trial], place: int) -> list[Trial]:
    """The trials with one of several objectives as their value, which they otherwise do not have."""
    return [replace(trial, value=trial.values[place]) if trial.values else trial for trial in trials]


def front_by_objectives(trials: Iterable[Trial], directions: Sequence[str]) -> list[Trial]:
    """The feasible completed trials that none beats in all objectives, by the first one."""
    feasible = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values and trial.is_feasible]
    return pareto_front(feasible, lambda trial: minimized(trial.values, directions))


def has_size(trial: Trial) -> bool:
    """Whether it can be on the front of loss and size."""
    return trial.loss is not None and trial.params_count is not None and trial.is_feasible


def front_by_size(completed: Iterable[Trial], *, maximize: bool) -> list[Trial]:
    """Those with loss and size that none beats in both, smallest first; of equals all, by number."""
    sign = -1.0 if maximize else 1.0
    by_number = sorted(filter(has_size, completed), key=lambda trial: trial.number)
    return pareto_front(by_number, lambda trial: (float(trial.params_count or 0), sign * (trial.loss or 0.0)))


def metric_names(trials: Iterable[Trial]) -> list[str]:
    """The metrics that any of the trials has, by name."""
    return sorted({name for trial in trials for name in trial.metrics})


SORT_COLUMNS: Mapping[str, Callable[[Trial], object]] = {
    "number": lambda trial: trial.number,
    "value": lambda trial: trial.value,
    "score": lambda trial: trial.value,
    "loss": lambda trial: trial.loss,
    "size": lambda trial: trial.params_count,
    "state": lambda trial: str(trial.state),
    "cause": lambda trial: cause_of(trial) or None,
    "duration": lambda trial: trial.duration_s,
    "started": lambda trial: trial.started_at.timestamp() if trial.started_at else None,
}
"""What every study's trials can be sorted by; `score` is another name of `value`."""


def sort_keys(
    params: Iterable[str], objectives: Iterable[str] = (), metrics: Iterable[str] = ()
) -> dict[str, Callable[[Trial], object]]:
    """By name what trials can be sorted by: columns, `values.OBJECTIVE`, `params.NAME`, `metrics.NAME`."""

    def by_value(place: int) -> Callable[[Trial], object]:
        return lambda trial: trial.values[place] if trial.values else None

    def by_param(name: str) -> Callable[[Trial], object]:
        return lambda trial: trial.params.get(name)

    def by_metric(name: str) -> Callable[[Trial], object]:
        return lambda trial: trial.metrics.get(name)

    return {
        **SORT_COLUMNS,
        **{f"values.{name}": by_value(place) for place, name in enumerate(objectives)},
        **{f"params.{name}": by_param(name) for name in params},
        **{f"metrics.{name}": by_metric(name) for name in metrics},
    }


def in_order(items: Sequence[T], key: Callable[[T], object], *, descending: bool = False) -> list[T]:
    """Numbers before words; rows without a value, and those that are not a number, come last in both directions."""
    valued: list[tuple[tuple[int, float, str], T]] = []
    others: list[T] = []
    for item in items:
        value = key(item)
        if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN compares with nothing
            others.append(item)
        else:
            valued.append((_comparable(value), item))
    return [*(item for _, item in sorted(valued, key=itemgetter(0), reverse=descending)), *others]


def note_object(note: Note | None) -> dict[str, Any]:
    """What a person wrote beside it, for programs."""
    return {"note": note.text if note else "", "tags": list(note.tags) if note else []}


def trial_object(trial: Trial, place: AttemptPlace | None = None, note: Note | None = None) -> dict[str, Any]:
    """A trial for programs."""
    return {
        "number": trial.number,
        "state": str(trial.state),
        "ending": ending_of(trial),
        "cause": cause_of(trial) or None,
        "value": json_number(trial.value),
        **({"values": list(map(json_number, trial.values))} if trial.values else {}),
        "loss": json_number(trial.loss),
        "feasible": trial.is_feasible if trial.state is TrialState.COMPLETE else None,
        **({"constraints": dict(trial.constraints)} if trial.constraints else {}),
        "params_count": trial.params_count,
        "active_params": trial.active_params,
        "params": trial.params,
        **{key: trial.attrs[name] for name, key in _RAN_IN.items() if name in trial.attrs},
        **({"extends": trial.attrs[EXTENDS]} if EXTENDS in trial.attrs else {}),
        "metrics": {name: trial.attrs[name] for name in trial.metrics},
        "reports": [{"step": report.step, "value": json_number(report.value)} for report in trial.reports],
        "started_at": trial.started_at.isoformat() if trial.started_at else None,
        "ended_at": trial.ended_at.isoformat() if trial.ended_at else None,
        "duration_s": trial.duration_s,
        "host": place.host if place else trial.attrs.get(HOST),
        "peak_rss_bytes": place.peak_rss_bytes if place else None,
        **note_object(note),
    }


def history_object(curves: Curves) -> dict[str, Any]:
    """Curves of metrics for programs, in the form of reports."""
    return {
        name: [{"step": step, "value": json_number(value)} for step, value in points] for name, points in curves.items()
    }


def artifact_object(artifact: Artifact) -> dict[str, Any]:
    """An artifact for programs."""
    return {
        "id": artifact.id,
        "name": artifact.name,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "mimetype": artifact.mimetype,
    }


def attempt_object(attempt: AttemptRecord) -> dict[str, Any]:
    """An attempt for programs, without its log."""
    kept = ("attempt", "host", "pid", "started_at", "ended_at", "cause", "message", "exit_status", "signal", "log_path")
    return {
        "trial": attempt.trial_number,
        **{name: getattr(attempt, name) for name in kept},
        "duration_s": None if attempt.ended_at is None else attempt.ended_at - attempt.started_at,
        "ending": str(attempt.ending) if attempt.ending else None,
        "peak_rss_bytes": attempt.peak_rss_bytes,
        "code": attempt.code,
        "environment": attempt.environment,
        "memory": attempt.memory.to_json() if attempt.memory else None,
    }


def _comparable(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
