"""The lines of a supervisor about its attempts, each with the ids by which an attempt is found."""

from __future__ import annotations

import logging

from highnoon.shared.domain.lease import Disposition, Lease
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.logs import event


class AttemptLog:
    """Of one node."""

    def __init__(self, logger: logging.Logger, worker_id: str) -> None:
        self._logger = logger
        self._worker = worker_id[:8]

    def event(self, action: str, lease: Lease, *, level: int = logging.INFO, **fields: object) -> None:
        """One line."""
        event(self._logger, action, level=level, **lease.ids, worker=self._worker, **fields)

    def finish(self, lease: Lease, outcome: Outcome, disposition: Disposition, foreign_ending: str | None) -> None:
        """The line of an attempt whose outcome is written; `foreign_ending` is how another program ended its trial.

        `disposition` is what was decided here: the database closes the ticket instead where a person has stopped it.
        """
        self.event(
            "finish",
            lease,
            trial=lease.trial_number,
            ending=outcome.ending,
            disposition=None if disposition is Disposition.CLOSE else disposition,
            value=outcome.logged_value,
            loss=outcome.logged_loss,
            size=outcome.params_count,
            seconds=outcome.duration_s,
            cause=outcome.cause,
            reason=outcome.message or None,
            optuna_trial=foreign_ending,
        )
