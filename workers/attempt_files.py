"""The files of an attempt before and after its trial: waits for a store that moves, and renews the lease meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from highnoon.shared.domain.lease import Disposition, Lease
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
        """The folder of the attempt's checkpoints, with what the one before it has saved: here, else in the store."""
        checkpoints = TicketCheckpoints(self._node.checkpoint_dir(lease.spec["name"], lease.ordinal))
        is_retry, stored = lease.before is not None, lease.checkpoint
        if is_retry and stored is not None and not checkpoints.has_since(stored.attempt):
            self._files.fetch(stored)
            self._wait()
        return checkpoints.begin(lease.attempt, is_retry=is_retry)

    def added_to(self, outcome: Outcome, disposition: Disposition) -> Outcome:
        """The outcome with its artifacts, once they are stored; where another attempt follows, its checkpoint is."""
        is_closed = disposition is Disposition.CLOSE
        self._files.end(goes_on=not is_closed)
        self._wait()
        if not is_closed:
            return outcome
        message = "; ".join(filter(None, [outcome.message, self._files.missing]))
        return replace(outcome, artifacts=self._files.artifacts, message=message)

    def _wait(self) -> None:
        give_up_at: float | None = None
        while self._files.advance():
            self._services.interruption()
            if give_up_at is None and self._node.drain.is_due():
                give_up_at = now_s() + self._node.settings.kill_grace_s
            if give_up_at is not None and now_s() > give_up_at:
                self._files.give_up("the worker is shutting down")
            wait_any([self._services.wakeup_fd], _LOOK_S)
