"""The lease: the right of one worker to make attempt n of a ticket, until it expires by the database's clock.

The attempt number is the fence. Every statement of a holder names (ticket, attempt); when it finds that attempt no
longer running, the holder stops and writes nothing. No worker's clock takes part.
This file has the values and the pure decisions; the statements are in `shared.store.attempts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.extension import Extension
from highnoon.shared.domain.states import INFRASTRUCTURE_ENDINGS, Cause, Ending, StrEnum
from highnoon.shared.domain.trial import MetricHistory, Outcome, Params


class Disposition(StrEnum):
    """What an outcome does to its ticket."""

    CLOSE = "close"
    """The outcome is final."""
    RETRY = "retry"
    """The ticket waits again, and the failure is charged."""
    RELEASE = "release"
    """Handed back by a drain: the ticket waits again, nothing is charged."""


class StartRefusal(StrEnum):
    """Why an attempt was not started; nothing was written then, except for PAUSED."""

    NOT_AVAILABLE = "not_available"
    """Taken, over, or not due yet: drop the message."""
    PAUSED = "paused"
    """The study is paused, and the ticket was put back to waiting: drop the message."""
    CHANGED = "changed"
    """The specification, the attempt number or the enqueued trial changed since `look`: look and sample again."""
    STUDY_DELETED = "study_deleted"
    """Optuna's study is gone. The coordinator closes the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease: the worker's random id, and where a person would look for it."""

    worker_id: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a renewal writes about the attempt."""

    step: int | None = None
    rss_bytes: int | None = None
    """What the trial alone holds, as its `MemoryTrace` has it."""
    metric_history: MetricHistory | None = None
    """None leaves what was written before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostAttempt:
    """What a new attempt inherits from the one before it: the same point of the search space."""

    params: Params
    trial_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedTrial:
    """An enqueued Optuna trial: what a person fixed, in Optuna's external representation."""

    trial_id: int
    number: int
    fixed: Mapping[str, Any] = field(default_factory=dict)
    extension: Extension | None = None
    """Of one that goes on from the checkpoint of another trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A ticket that could be started now, with all that its point depends on.

    `attempt` is the last one; the next is `attempt + 1`. `waiting` is the study's oldest enqueued trial.
    """

    ticket_id: int
    study_id: int
    study_name: str
    spec: Mapping[str, Any]
    spec_version: int
    ordinal: int
    attempt: int
    infrastructure_failures: int
    errors: int
    before: LostAttempt | None = None
    waiting: EnqueuedTrial | None = None
    must_be_alone: bool = False
    """A neighbour's memory has ended an attempt of it before: the next one has its node to itself."""
    checkpoint: Checkpoint | None = None
    """The newest one in the store, of whichever attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to make attempt `attempt` of ticket `ticket_id`, as `Attempts.start` granted it.

    `spec` is the study's specification at that moment: limits may change between two attempts.
    """

    ticket_id: int
    attempt: int
    spec: Mapping[str, Any]
    ordinal: int
    infrastructure_failures: int
    errors: int
    ttl_s: float
    trial_id: int
    trial_number: int
    params: Params
    before: LostAttempt | None = None
    must_be_alone: bool = False
    checkpoint: Checkpoint | None = None
    extension: Extension | None = None

    @property
    def ids(self) -> dict[str, object]:
        """By which a log names the attempt."""
        return {"study": self.spec["name"], "ticket": self.ticket_id, "attempt": self.attempt}


DISK_FULL_S = 1.0
"""How long a ticket waits that a node without room has handed back."""

RETRY_DELAY_S = 1.0
_LONGEST_RETRY_DELAY_S, _LONGEST_AFTER = 300.0, 9
"""The longest delay, and after how many failures it is reached."""


def retry_delay_s(infrastructure_failures: int, cause: str | None = None) -> float:
    """How long a ticket waits after such a failure, of which it had so many before.

    Not at all after the first one, unless a neighbour had filled the node: it must have time to leave. Then doubled
    each time, up to five minutes, or a bad node uses all attempts in a second.
    `hn_reap_1` in functions.sql decides in the same way.
    """
    must_wait = infrastructure_failures > 0 or cause == Cause.OOM_NEIGHBOUR
    doubled = RETRY_DELAY_S * 2.0 ** min(infrastructure_failures, _LONGEST_AFTER)
    return min(doubled, _LONGEST_RETRY_DELAY_S) if must_wait else 0.0


def dispose(
    outcome: Outcome, *, attempt: int, infrastructure_failures: int, errors: int, max_attempts: int, retry_errors: int
) -> tuple[Disposition, float]:
    """What to do with a ticket whose attempt ended so, and how many seconds it waits where it is tried again.

    The counts are those before this attempt. `hn_reap_1` in functions.sql decides in the same way about an attempt
    that was lost.
    """
    # Nothing is charged: a sampler that never answers would have it begin again and again without a pause.
    if outcome.ending is Ending.RELEASED and outcome.cause == Cause.PLUGIN:
        return Disposition.RELEASE, retry_delay_s(attempt)
    if outcome.ending is Ending.RELEASED:
        return Disposition.RELEASE, DISK_FULL_S if outcome.cause == Cause.DISK else 0.0
    if outcome.ending in INFRASTRUCTURE_ENDINGS and infrastructure_failures + 1 < max_attempts:
        return Disposition.RETRY, retry_delay_s(infrastructure_failures, outcome.cause)
    if outcome.ending is Ending.FAILED and errors < retry_errors:
        return Disposition.RETRY, 0.0
    return Disposition.CLOSE, 0.0
