"""The rows of a coordinator's snapshot, as values: live studies with their open tickets, expired leases, messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from highnoon.shared.domain.states import Ending
from highnoon.shared.store.study_records import StudyRecord


class ReadyTickets(NamedTuple):
    """Tickets of one study that may be dispatched, and how many of them have been tried before."""

    ready: int
    retried: int


class TrialTimes(NamedTuple):
    """How long trials of one study take, and how many have ended; counted up to a limit."""

    trial_s: float
    ended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLoad:
    """One live study and its open tickets."""

    study: StudyRecord
    waiting: bool = False
    """Whether any ticket waits, be it ready or not."""
    ready: int = 0
    """Waiting tickets whose `not_before` has passed; counted only as far as they could be dispatched now."""
    retried: int = 0
    """How many of the counted ones have been tried before."""
    queued: int = 0
    running: int = 0
    trial_s: float = 0.0
    """How long a trial takes; infinite where none has begun. Read only for a study with ready tickets."""
    ended: int = 0
    """How many trials have ended, counted as far as it matters for the buffer; read with `trial_s`."""
    age_s: float = 0.0
    """Since its first dispatch."""
    deleted: bool = False
    """Optuna does not have it any more."""
    directions: str | None = None
    """As Optuna has them, in their order, with commas."""
    best_value: float | None = None
    """Of feasible trials; read only for a study with a `target_value`."""
    has_success: bool = False
    """Whether a trial has completed; read only for a study whose last trials have all failed."""
    recent_endings: tuple[Ending, ...] = ()
    """Newest first, as many as may end the study."""
    since_best: int = 0
    """How many trials have ended since the best one; read only for a study with `early_stop`."""
    fault: str | None = None
    """What is wrong with its data. Nothing of it is started meanwhile."""

    @property
    def maximizes(self) -> bool:
        """Whether a higher value is better."""
        return self.study.spec.get("direction") == "maximize"

    @property
    def priority(self) -> int:
        """Its share of the slots, beside other studies of the queue."""
        return int(self.study.spec.get("priority", 1))

    @property
    def max_running(self) -> int | None:
        """How many of its trials may be queued and running."""
        most = self.study.spec.get("max_running")
        return None if most is None else int(most)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiringLease:
    """An attempt whose lease expires in `left_s` seconds by the database's clock; below 0 it has expired."""

    ticket_id: int
    attempt: int
    study_id: int
    name: str
    """Of the study."""
    left_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTicket:
    """A ticket whose message ought to be in Redis; `age_s` since it was sent."""

    ticket_id: int
    study_id: int
    age_s: float
    tried: bool = False
    """Whether it had an attempt before: then its message went to the head of the queue."""
