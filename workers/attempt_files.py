"""The files of an attempt before and after its trial: waits for a store that moves, and renews the lease meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from highnoon.shared.domain.errors import FileStoreError
from highnoon.shared.domain.extension import EXTENDABLE
from highnoon.shared.domain.lease import Disposition, Lease
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.workers.node import Node
from highnoon.workers.trial.checkpoints import TicketCheckpoints
from highnoon.workers.trial.launch import now_s, wait_any
from highnoon.workers.trial_services import TrialServices

_LOOK_S = 0.1


class AttemptFiles:
    """For the monitor's thread of a supervisor. Raises LeaseLost."""

    def __init__(self, node: Node, services: TrialServices) -> None:
        self._node = node
        self._services = services
        self._files = services.files

    def begun_checkpoints(self, lease: Lease) -> Path:
        """The folder of the attempt's checkpoints, with what the one before it has saved: here, else in the store.

        Raises FileStoreError for a longer training whose beginning cannot be fetched: it would be another training.
        """
        checkpoints = TicketCheckpoints(self._node.checkpoint_dir(lease.spec["name"], lease.ordinal))
        if lease.before is None:
            checkpoints.remove()  # of another study of the same name
        stored = lease.checkpoint
        if stored is not None and not checkpoints.has_since(stored.attempt):
            self._files.fetch(stored)
            self._wait()
            if self._files.not_fetched and lease.extension is not None and stored.is_of_another_ticket:
                raise FileStoreError(
                    f"the checkpoint of trial {lease.extension.of} is not to be had: {self._files.not_fetched}"
                )
        return checkpoints.begin(lease.attempt)

    def outcome_without(self, error: FileStoreError) -> Outcome:
        """Of an attempt that `begun_checkpoints` let not begin: handed back where its node shuts down meanwhile."""
        is_drained = self._node.drain.is_due()
        ending, cause = (Ending.RELEASED, Cause.DRAIN) if is_drained else (Ending.LOST, Cause.CHECKPOINT)
        return Outcome(ending=ending, cause=cause, message=str(error))

    def added_to(self, outcome: Outcome, disposition: Disposition, *, keeps_checkpoint: bool) -> Outcome:
        """The outcome with its artifacts, once they are stored; where another attempt follows, its checkpoint is.

        `keeps_checkpoint`: its study keeps last checkpoints, for longer trainings.
        """
        is_closed = disposition is Disposition.CLOSE
        self._files.end(goes_on=not is_closed, keeps_checkpoint=keeps_checkpoint and outcome.ending in EXTENDABLE)
        self._wait()
        if not is_closed:
            return outcome
        message = "; ".join(filter(None, [outcome.message, self._files.missing]))
        return replace(outcome, artifacts=self._files.artifacts, message=message)

    def end_checkpoints(self, lease: Lease, disposition: Disposition) -> None:
        """Removes the checkpoints of a ticket that is closed; otherwise keeps what is saved, for its next attempt.

        Keeps them also for a trial that a person has stopped at this moment, whose ticket the database closes instead:
        they are removed after the study.
        """
        checkpoints = TicketCheckpoints(self._node.checkpoint_dir(lease.spec["name"], lease.ordinal))
        if disposition is Disposition.CLOSE:
            checkpoints.remove()
        else:
            checkpoints.leave()

    def _wait(self) -> None:
        give_up_at: float | None = None
        while self._files.advance():
            self._services.interruption()
            if give_up_at is None and self._node.drain.is_due():
                give_up_at = now_s() + self._node.settings.kill_grace_s
            if give_up_at is not None and now_s() > give_up_at:
                self._files.give_up("the worker is shutting down")
            wait_any([self._services.wakeup_fd], _LOOK_S)
