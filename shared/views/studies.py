"""Studies, workers and what they run, for readers: one summary of a study, and objects for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.goals import directions_of
from highnoon.shared.domain.states import WENT_WRONG, Ending, StudyState, TicketState, TrialState
from highnoon.shared.domain.trial import json_number

if TYPE_CHECKING:
    from typing_extensions import Self

    from highnoon.shared.store.attempt_queries import RunningAttempt
    from highnoon.shared.store.nodes import Worker
    from highnoon.shared.store.queries import QueueState, StudyProgress
    from highnoon.shared.store.study_catalogue import StudyEntry
    from highnoon.shared.store.study_records import StudyRecord

STATES = (*(str(state) for state in StudyState), "external")
"""What `StudySummary.state` may be."""

_NOT_COMPARED = frozenset({"name", "code_dir", "code", "bundle", "git", "seed"})
"""Keys of a specification in which every two studies differ."""


def differences(specs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Dotted keys of specifications whose values are not the same in all, with each one's; None where it has none."""
    flat = [dict(_flat({key: spec[key] for key in spec if key not in _NOT_COMPARED})) for spec in specs]
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [one.get(key) for one in flat]
        if any(value != values[0] for value in values):
            yield key, values


def _flat(spec: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in spec.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """A study and how far it is. `record` is None for one that no coordinator runs: it can only be read.

    `total` counts the trials that are to end, without those that were cancelled.
    """

    name: str
    direction: str
    total: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    best: float | None
    record: StudyRecord | None = field(default=None, repr=False)
    closed: int = 0
    """Trials that have ended and count: complete, pruned and failed ones, and those that a person has stopped."""
    attempts: int = 0
    tickets: Mapping[str, int] = field(default_factory=dict)
    endings: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_ledger(cls, progress: StudyProgress) -> Self:
        """A study that a coordinator runs."""
        record, counts = progress.record, progress.counts
        return cls(
            name=record.name,
            direction=", ".join(directions_of(record.spec)),
            total=counts.total - counts.by_state.get(TicketState.CANCELLED, 0),
            complete=counts.by_ending.get(Ending.COMPLETED, 0),
            pruned=counts.by_ending.get(Ending.PRUNED, 0) + counts.by_ending.get(Ending.STOPPED, 0),
            failed=sum(count for ending, count in counts.by_ending.items() if ending in WENT_WRONG),
            running=counts.running,
            waiting=sum(counts.by_state.get(state, 0) for state in (TicketState.WAITING, TicketState.QUEUED)),
            best=progress.best_value,
            record=record,
            closed=counts.closed,
            attempts=counts.attempts,
            tickets={str(state): count for state, count in counts.by_state.items()},
            endings={str(ending): count for ending, count in counts.by_ending.items()},
        )

    @classmethod
    def of_optuna(cls, entry: StudyEntry, best: float | None) -> Self:
        """A study without a coordinator."""
        count = {state: entry.by_state.get(state, 0) for state in TrialState}
        return cls(
            name=entry.name,
            direction=entry.direction,
            total=entry.total,
            complete=count[TrialState.COMPLETE],
            pruned=count[TrialState.PRUNED],
            failed=count[TrialState.FAIL],
            running=count[TrialState.RUNNING],
            waiting=count[TrialState.WAITING],
            closed=count[TrialState.COMPLETE] + count[TrialState.PRUNED] + count[TrialState.FAIL],
            best=best,
        )

    @property
    def state(self) -> str:
        """The ledger's word; `external` for a study without a coordinator."""
        return "external" if self.record is None else str(self.record.state)

    @property
    def id(self) -> int | None:
        return None if self.record is None else self.record.id

    @property
    def stopped(self) -> int:
        """Trials that a person has stopped. `endings["stopped"]` are others, for memory: `pruned` counts them."""
        return self.closed - self.complete - self.pruned - self.failed

    @property
    def asked(self) -> int:
        """Trials that were asked for, with those that a limit or a person has dropped."""
        return self.total + self.tickets.get(TicketState.CANCELLED, 0)

    @property
    def is_live(self) -> bool:
        """Whether something about it may change by itself."""
        return self.running > 0 or (self.record is not None and not self.is_over)

    @property
    def is_over(self) -> bool:
        """Whether its coordinator has ended it."""
        return self.record is not None and self.record.is_over

    @property
    def spec(self) -> Mapping[str, Any]:
        """What a person decided, of a study with a fault what can be read; empty for one without a coordinator."""
        if self.record is None or self.record.fault is None:
            return {} if self.record is None else self.record.spec
        return _readable(self.record.spec)

    @property
    def full_spec(self) -> Mapping[str, Any]:
        """The same with all keys: one of an older version, or one with broken data, is shown all the same."""
        return {**_defaults(), **self.spec}

    @property
    def maximize(self) -> bool:
        return self.direction == "maximize"


@cache
def _defaults() -> Mapping[str, Any]:
    from highnoon.shared.domain.study import StudySpec

    return StudySpec.model_construct(name="", objective="", search_space={}).to_json()


def _readable(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    from highnoon.shared.domain.study import StudySpec

    try:
        StudySpec.from_json(spec)
    except InvalidInput as invalid:
        # Of a search space what can be read is shown.
        broken = {problem.key.partition(".")[0] for problem in invalid.problems} - {"search_space"}
        return {key: value for key, value in spec.items() if key not in broken}
    return spec


def fault_line(fault: str) -> str:
    """A study's fault, for people, and whether it holds the study up."""
    from highnoon.shared.store.control import DECLINED_FAULT, PLUGIN_FAULT

    if fault.startswith(DECLINED_FAULT):
        return f"A worker cannot start its trials: {fault.removeprefix(DECLINED_FAULT)}"
    if fault.startswith(PLUGIN_FAULT):
        return f"Nothing of this study is started for a minute; then this is tried again: {fault}"
    return f"Nothing of this study is started until its fault is corrected: {fault}"


def exhausted_line(study: StudySummary) -> str:
    """Why a study ended that found no further point, for people; empty for any other."""
    if study.record is None or study.record.stop_reason != "exhausted":
        return ""
    constraints = " and ".join(study.record.spec.get("param_constraints") or ())
    found = f"was found that keeps {constraints}" if constraints else "is left"
    return f"exhausted: no further point of its search space {found}"


def study_object(study: StudySummary) -> dict[str, Any]:
    """A study for programs."""
    counted = ("complete", "pruned", "failed", "running", "waiting", "closed", "attempts")
    record = study.record
    return {
        "id": study.id,
        "name": study.name,
        "state": study.state,
        "reason": record.stop_reason if record else None,
        "fault": record.fault if record else None,
        "direction": study.direction,
        "objectives": study.spec.get("objectives"),
        "trials": study.total,
        **{name: getattr(study, name) for name in counted},
        "tickets": dict(study.tickets),
        "endings": dict(study.endings),
        "best_value": json_number(study.best),
        "submitted_at": record.submitted_at if record else None,
        "started_at": record.started_at if record else None,
        "ended_at": record.ended_at if record else None,
    }


def worker_object(worker: Worker, running: Sequence[RunningAttempt]) -> dict[str, Any]:
    """A worker and what it runs, for programs. `state_reason` is the older name of `reason`."""
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "slots": worker.slots,
        "queues": list(worker.queues),
        "state": str(worker.state),
        "reason": worker.state_reason,
        "state_reason": worker.state_reason,
        "facts": dict(worker.facts),
        "silent_s": worker.silent_s,
        "running": [running_object(attempt) for attempt in running if attempt.worker_id == worker.id],
    }


def running_object(attempt: RunningAttempt) -> dict[str, Any]:
    """A running attempt for programs. `trial_number` and `rss_bytes` are older names of `trial` and `memory_bytes`."""
    kept = ("study", "trial_number", "attempt", "pid", "age_s", "lease_left_s", "step", "rss_bytes")
    shown = {name: getattr(attempt, name) for name in kept}
    return {"trial": attempt.trial_number, **shown, "memory_bytes": attempt.rss_bytes}


def queue_object(queue: QueueState) -> dict[str, Any]:
    """The tickets of a resource, for programs. `leased` is the older name of `running`."""
    return {
        "resource": queue.resource,
        "waiting": queue.waiting,
        "queued": queue.queued,
        "running": queue.running,
        "leased": queue.running,
        "oldest_s": queue.oldest_s,
    }
