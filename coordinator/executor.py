"""Performing the planner's Actions. Each is one conditional statement, or a statement and what follows from it.

What dies between the two is found by the next tick: a queued ticket without a message is sent again, a told but
not closed ticket is told again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from typing_extensions import assert_never

from highnoon.coordinator.cluster_metrics import Deeds
from highnoon.coordinator.optuna_side import OptunaSide
from highnoon.coordinator.planner import Action, Close, Dispatch, FailOrphan, Reap, Resend, Snapshot, Stop, Tell
from highnoon.coordinator.quarantine import Quarantine
from highnoon.coordinator.snapshot_reader import Observer
from highnoon.shared.domain.errors import InvariantBroken, ServiceUnavailable, UnknownStudy
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.states import WorkerState
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.control import Control
from highnoon.shared.store.database import Database
from highnoon.shared.store.leases import Leases
from highnoon.shared.store.losses import Losses
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.studies import StudyRecord

_log = logging.getLogger("highnoon.coordinator.executor")

_NAMES: Mapping[type[Action], str] = {
    Tell: "tell",
    Reap: "reap",
    FailOrphan: "fail_orphan",
    Stop: "stop",
    Close: "close_study",
    Quarantine: "quarantine",
    Resend: "resend",
    Dispatch: "dispatch",
}
"""As metrics call them."""


class Performer:
    """One leader's hands."""

    def __init__(
        self, *, database: Database, broker: Broker, optuna: OptunaSide, observer: Observer, deeds: Deeds
    ) -> None:
        self._control = Control(database)
        self._leases = Leases(database)
        self._losses = Losses(database)
        self._nodes = Nodes(database)
        self._broker = broker
        self._optuna = optuna
        self._observer = observer
        self._deeds = deeds
        self._studies: dict[int, StudyRecord] = {}

    def perform(self, actions: Sequence[Action], snapshot: Snapshot) -> None:
        """All of them, in order. Raises ServiceUnavailable when the database goes away; Redis may be away."""
        self._studies = {load.study.id: load.study for load in snapshot.loads}
        for action in actions:
            self._perform(action)
            self._deeds.did(_NAMES[type(action)])

    def _perform(self, action: Action) -> None:
        match action:
            case Tell():
                self._tell(action)
            case Reap():
                self._reap(action)
            case FailOrphan():
                self._fail_orphan(action)
            case Stop():
                self._control.stop(action.study_id, action.reason)
                event(_log, "stop", study=self._studies[action.study_id].name, reason=action.reason)
            case Close():
                if self._control.finish(action.study_id, state=action.state, reason=action.reason):
                    event(_log, "close_study", study=action.name, state=action.state, reason=action.reason)
            case Quarantine():
                self._quarantine(action)
            case Resend():
                self._resend(action)
            case Dispatch():
                self._dispatch(action)
            case _:
                assert_never(action)

    def _tell(self, action: Tell) -> None:
        settled = action.settled
        study = self._studies.get(settled.study_id)
        if study is None:
            return
        if settled.trial_id is not None:
            try:
                self._optuna.study(study).tell(settled.trial_id, settled.outcome)
            except InvariantBroken as error:
                event(_log, "invariant_broken", level=logging.ERROR, study=study.name, error=error)
            except UnknownStudy as error:
                # Somebody deleted it in Optuna: nobody is left to be told, and the other studies must go on.
                event(_log, "study_deleted", level=logging.ERROR, study=study.name, error=error)
                self._observer.remember_deleted(study.id)
        self._leases.close(settled.ticket_id, settled.attempt)
        event(
            _log,
            "tell",
            study=study.name,
            ticket=settled.ticket_id,
            attempt=settled.attempt,
            ending=settled.outcome.ending,
        )

    def _reap(self, action: Reap) -> None:
        disposition = self._losses.lose(
            action.ticket_id, action.attempt, message="its lease ran out", only_expired=True
        )
        if disposition is not None:
            self._observer.look_for_orphans_soon()
            event(
                _log,
                "reap",
                level=logging.WARNING,
                ticket=action.ticket_id,
                attempt=action.attempt,
                disposition=disposition,
            )

    def _fail_orphan(self, action: FailOrphan) -> None:
        trial = action.orphan.trial
        study = self._studies[action.orphan.study_id]
        if not self._optuna.study(study).fail(trial.trial_id, "its attempt is over and nobody runs it"):
            return  # it has ended since we looked
        event(
            _log,
            "fail_orphan",
            level=logging.WARNING,
            study=study.name,
            ticket=trial.owner.ticket,
            attempt=trial.owner.attempt,
            trial=trial.number,
        )

    def _quarantine(self, action: Quarantine) -> None:
        if self._nodes.move(action.worker_id, (WorkerState.ACTIVE,), WorkerState.QUARANTINED, action.reason):
            event(_log, "quarantine", level=logging.WARNING, worker=action.worker_id[:8], reason=action.reason)

    def _dispatch(self, action: Dispatch) -> None:
        self._control.mark_started(action.study_id)
        ticket_ids = self._control.dispatch(action.study_id, action.count)
        self._send(action, ticket_ids)

    def _resend(self, action: Resend) -> None:
        ticket_ids = self._control.requeue(action.ticket_ids)
        event(_log, "resend", level=logging.WARNING, study=action.name, messages=len(ticket_ids))
        self._send(action, ticket_ids)

    def _send(self, action: Dispatch | Resend, ticket_ids: Sequence[int]) -> None:
        messages = [RunTrial(study=action.name, ticket=ticket_id) for ticket_id in ticket_ids]
        try:
            self._broker.publish(messages, resource=action.resource)
        except ServiceUnavailable as error:
            # The tickets stay queued; a later tick sees more of them than messages and sends again.
            event(_log, "outage", level=logging.WARNING, during="publish", error=error)
