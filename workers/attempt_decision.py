"""What becomes of a ticket after an attempt: decided once, then written by one call. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from highnoon.shared.domain.lease import Disposition, Lease, RetryPolicy, dispose, retry_delay_s
from highnoon.shared.domain.states import INFRASTRUCTURE_ENDINGS, Cause
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome

DISK_FULL_S = 1.0
"""How long a ticket waits that a node without room has handed back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the ticket is closed, or waits again and how long."""

    disposition: Disposition
    delay_s: float

    @classmethod
    def of(cls, outcome: Outcome, lease: Lease, spec: StudySpec) -> Decision:
        """The study's policy on retries, and what the ticket has been through."""
        failures = lease.infrastructure_failures
        policy = RetryPolicy(max_attempts=spec.max_attempts, retry_errors=spec.retry_errors)
        disposition = dispose(outcome, infrastructure_failures=failures, errors=lease.errors, policy=policy)
        if disposition is Disposition.RETRY and outcome.ending in INFRASTRUCTURE_ENDINGS:
            return cls(disposition=disposition, delay_s=retry_delay_s(failures, outcome.cause))
        return cls(disposition=disposition, delay_s=DISK_FULL_S if outcome.cause == Cause.DISK else 0.0)
