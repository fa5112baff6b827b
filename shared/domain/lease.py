"""The lease: the right of one worker to make attempt n of a ticket, until the database says otherwise.

The attempt number is the fence. Every statement that a holder makes names (ticket, attempt); when it touches
no row the right is gone, and the holder stops and writes nothing. Only the database's clock judges expiry.
This file has the values and the pure decisions; the statements are in `ledger`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from highnoon.shared.domain.states import INFRASTRUCTURE_ENDINGS, Ending, StrEnum
from highnoon.shared.domain.trial import Outcome, Params

OOM_NEIGHBOUR = "oom_neighbour"
"""The cause of an attempt that was within its share of memory when a neighbour filled the node: tried again, alone."""


class Wish(StrEnum):
    """What the study wants of a holder; brought back by each renewal."""

    CARRY_ON = "carry_on"
    CANCEL = "cancel"
    DRAIN = "drain"


class Disposition(StrEnum):
    """What an outcome does to its ticket."""

    SETTLE = "settle"
    """The outcome is final: tell Optuna, close."""
    RETRY = "retry"
    """Infrastructure: give the ticket back and charge a loss."""
    RELEASE = "release"
    """Handed back by a drain: give the ticket back, charge nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostAttempt:
    """What a new attempt inherits from the one before it: the same point of the search space."""

    params: Params
    trial_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to make attempt `attempt` of ticket `ticket_id`, as `claim` granted it.

    `spec` is the study's specification at that moment: limits may change between two attempts.
    """

    ticket_id: int
    attempt: int
    study_id: int
    spec: Mapping[str, Any]
    ordinal: int
    losses: int
    errors: int
    worker_id: str
    ttl_s: float
    before: LostAttempt | None = None
    must_be_alone: bool = False
    """A neighbour's memory has ended an attempt of it before: this one has its node to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a ticket is tried again. Losses are infrastructure's doing, errors the objective's."""

    max_attempts: int = 3
    retry_errors: int = 0


_RETRY_DELAY_S = 1.0


def retry_delay_s(losses: int) -> float:
    """How long a ticket waits after a loss: doubled each time, or a node in trouble eats all attempts in a second."""
    return _RETRY_DELAY_S * 2.0**losses


def dispose(outcome: Outcome, *, losses: int, errors: int, policy: RetryPolicy) -> Disposition:
    """What to do with a ticket whose attempt ended so; `losses` and `errors` were charged before this attempt."""
    if outcome.ending is Ending.RELEASED:
        return Disposition.RELEASE
    if outcome.ending in INFRASTRUCTURE_ENDINGS:
        return Disposition.RETRY if losses + 1 < policy.max_attempts else Disposition.SETTLE
    if outcome.ending is Ending.FAILED and errors < policy.retry_errors:
        return Disposition.RETRY
    return Disposition.SETTLE
