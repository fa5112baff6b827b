"""The supervisor: what one slot does with one message. One attempt at a time, from claim to close.

One per Celery child, long-lived, with one Python thread (it forks) and its own connections. The steps are those of
the protocol; whatever happens between two of them is repaired from the ledger by somebody else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from highnoon.shared.domain.errors import InvariantBroken, LeaseLost, ServiceUnavailable, UnknownStudy
from highnoon.shared.domain.lease import Disposition, Lease, RetryPolicy, dispose, retry_delay_s
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.states import INFRASTRUCTURE_ENDINGS, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.database import Database
from highnoon.shared.store.leases import Holder, Leases
from highnoon.shared.store.losses import Losses
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import Asked, Owner
from highnoon.shared.store.outages import persistently
from highnoon.workers.claim import Claiming
from highnoon.workers.code.code_gate import Code, CodeGate
from highnoon.workers.monitor.resources import ResourceAllocator
from highnoon.workers.monitor.trial_monitor import Limits, Watch
from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotNotes
from highnoon.workers.telemetry import Telemetry
from highnoon.workers.trial.checkpoints import TicketCheckpoints
from highnoon.workers.trial.fork_server import ForkServer
from highnoon.workers.trial.launch import ThreadTrial, launch
from highnoon.workers.trial.output import Output
from highnoon.workers.trial.process import Assignment, trial_seed
from highnoon.workers.trial_services import TrialDuties

T = TypeVar("T")

_log = logging.getLogger("highnoon.workers.supervisor")

_EXIT_ABANDONED = 71
"""This process ends because a trial without isolation would not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study as this supervisor has it open: its question as the ledger has it, and Optuna's side of it."""

    written: Mapping[str, Any]
    spec: StudySpec
    optuna: OptunaStudy


class Supervisor:
    """Owns a slot's connections. Built in the Celery child, never before the fork that made it."""

    def __init__(self, node: Node, forks: ForkServer) -> None:
        settings = node.settings
        if settings.database_url is None or settings.redis_url is None:
            raise ValueError("a supervisor needs the addresses of PostgreSQL and Redis")
        self._node = node
        self._forks = forks
        self._holder = Holder(worker_id=node.worker_id, host=node.host, pid=os.getpid())
        self._database = Database(settings.database_url)
        self._leases = Leases(self._database)
        self._losses = Losses(self._database)
        self._store = OptunaStore(settings.database_url, create_schema=False)
        self._broker = Broker(settings.redis_url)
        self._notes = SlotNotes(node.folder / "slots")
        self._claiming = Claiming(node, self._holder, self._database, self._leases, self._broker, self._notes)
        self._telemetry = Telemetry(node.folder if settings.worker_metrics_port else None)
        self._code = CodeGate(settings, Bundles(self._database))
        self._resources = ResourceAllocator(node)
        self._open: dict[int, OpenStudy] = {}
        self._haunted = False

    def run(self, message: RunTrial) -> None:
        """Claim, ask, run, settle, tell. Never raises for what a trial or an outage does."""
        with ExitStack() as work:
            try:
                work.enter_context(self._notes.at_work(message.study, message.ticket))
            except OSError as error:
                # Its disk is full, for instance. Other nodes may do better.
                event(_log, "no_note", level=logging.ERROR, study=message.study, ticket=message.ticket, error=error)
                self._claiming.decline(message)
                return
            work.enter_context(self._telemetry.attempt())
            lease = self._claim(message)
            if lease is None:
                return
            self._notes.add_attempt(lease.attempt)
            self._attempt(lease)
        self._broker.ring()
        if self._haunted:
            self._event("abandoned_thread", lease, level=logging.ERROR)
            os._exit(_EXIT_ABANDONED)

    def _attempt(self, lease: Lease) -> None:
        try:
            study = self._study(lease)
            code = self._persistently(lambda: self._code.pass_or_refuse(study.spec))
            with self._telemetry.step("ask"):
                trial = self._ask(study, lease, code)
            outcome = code.refusal or self._run(study, lease, trial, code)
            self._conclude(study, lease, trial, outcome)
        except LeaseLost as error:
            self._event("lease_lost", lease, level=logging.WARNING, reason=error)
        except Exception as error:
            # A fault of ours or of the study's data must not hold the ticket until its lease runs out.
            _log.exception("action=attempt_abandoned ticket=%d attempt=%d", lease.ticket_id, lease.attempt)
            self._let_go(lease, error)

    def _claim(self, message: RunTrial) -> Lease | None:
        known = next((study.spec for study in self._open.values() if study.spec.name == message.study), None)
        with self._telemetry.step("claim"):
            lease = self._claiming.lease(message, known)
        if lease is not None:
            self._event("claim", lease)
        return lease

    def _study(self, lease: Lease) -> OpenStudy:
        """Opened once, and anew when somebody has submitted it with other limits."""
        known = self._open.get(lease.study_id)
        if known is not None and known.written == lease.spec:
            return known
        spec = StudySpec.from_json(lease.spec)
        optuna = self._persistently(lambda: self._store.open(spec))
        study = OpenStudy(written=lease.spec, spec=spec, optuna=optuna)
        self._open[lease.study_id] = study
        return study

    def _ask(self, study: OpenStudy, lease: Lease, code: Code) -> Asked:
        """The Optuna trial of this attempt: a new proposal, or the parameters of the attempt that was lost."""
        owner = Owner(ticket=lease.ticket_id, attempt=lease.attempt)
        before = lease.before
        if before is not None:
            trial = self._persistently(
                lambda: study.optuna.ask_again(params=before.params, owner=owner, failed_trial=before.trial_number)
            )
        else:
            trial = self._persistently(lambda: study.optuna.ask(ordinal=lease.ordinal, owner=owner))
        log_path = self._node.log_path(study.spec.name, trial.number)
        self._persistently(
            lambda: self._leases.bind(
                lease,
                trial_id=trial.trial_id,
                trial_number=trial.number,
                params=trial.params,
                log_path=str(log_path),
                code=code.digest,
            )
        )
        return trial

    def _run(self, study: OpenStudy, lease: Lease, trial: Asked, code: Code) -> Outcome:
        spec, settings = study.spec, self._node.settings
        output = Output(
            self._node.log_path(spec.name, trial.number),
            limit_bytes=settings.log_limit_bytes,
            tail_bytes=settings.log_tail_bytes,
        )
        limits = Limits(
            trial_timeout_s=spec.trial_timeout,
            stall_timeout_s=spec.stall_timeout,
            renew_s=settings.renew_s,
            kill_grace_s=settings.kill_grace_s,
        )
        duties = TrialDuties(self._node, self._leases, lease, study.optuna, trial.trial_id)
        with closing(output), self._resources.take(spec, duties, alone=lease.must_be_alone) as resources:
            if resources.refusal is not None:
                return resources.refusal
            checkpoints = self._checkpoints(lease).begin(lease.attempt, is_retry=lease.before is not None)
            assignment = self._assignment(spec, lease, trial, code, checkpoints)
            running = launch(self._isolation(spec, lease), resources.marked(assignment), output, self._forks)
            try:
                self._notes.add_trial(running.pid)
                duties.attend(running)
                outcome = Watch(running, output, duties, limits, resources.memory_of(running.pid)).run()
                self._persistently(duties.write_reports)
                return self._excused(outcome)
            finally:
                running.clean_up()
                # The thread of a trial without isolation may outlive its attempt: this process must not go on then.
                self._haunted = isinstance(running, ThreadTrial) and running.is_abandoned

    def _excused(self, outcome: Outcome) -> Outcome:
        """A service manager may have signalled the trial as well: what SIGTERM ends during a drain is handed back."""
        if outcome.ending is Ending.KILLED and outcome.signal == "SIGTERM" and self._node.drain.is_given():
            return replace(outcome, ending=Ending.RELEASED, cause="drain")
        return outcome

    def _conclude(self, study: OpenStudy, lease: Lease, trial: Asked, outcome: Outcome) -> None:
        """From the outcome to the ledger, then to Optuna. `settle` is the point of no return."""
        policy = RetryPolicy(max_attempts=study.spec.max_attempts, retry_errors=study.spec.retry_errors)
        disposition = dispose(outcome, losses=lease.losses, errors=lease.errors, policy=policy)
        self._telemetry.decided(outcome, disposition)
        checkpoints = self._checkpoints(lease)
        if disposition is Disposition.SETTLE:
            with self._telemetry.step("settle"):
                self._persistently(lambda: self._leases.settle(lease, outcome))
            checkpoints.remove()
            self._log_outcome(lease, trial, outcome)
            self._tell(study, lease, trial, outcome)
            return
        charge = disposition is Disposition.RETRY
        checkpoints.leave()
        delay_s = retry_delay_s(lease.losses) if charge and outcome.ending in INFRASTRUCTURE_ENDINGS else 0.0
        self._persistently(lambda: self._leases.give_back(lease, outcome, charge=charge, delay_s=delay_s))
        self._log_outcome(lease, trial, outcome)
        self._quietly(lambda: study.optuna.tell(trial.trial_id, outcome), lease)

    def _tell(self, study: OpenStudy, lease: Lease, trial: Asked, outcome: Outcome) -> None:
        """If this does not get through, the coordinator tells the same outcome in a few seconds."""
        with self._telemetry.step("tell"):
            told = self._quietly(lambda: study.optuna.tell(trial.trial_id, outcome), lease)
        if told:
            self._quietly(lambda: self._leases.close(lease.ticket_id, lease.attempt), lease)

    def _isolation(self, spec: StudySpec, lease: Lease) -> str:
        if spec.isolation == "fork" and not self._node.fork_works:
            return "spawn"
        if spec.isolation == "fork" and not self._forks.is_ready():
            self._event("fork_unsafe", lease, level=logging.WARNING, instead="spawn")
            return "spawn"
        return spec.isolation

    def _assignment(self, spec: StudySpec, lease: Lease, trial: Asked, code: Code, checkpoints: Path) -> Assignment:
        return Assignment(
            study=spec.name,
            ticket=lease.ticket_id,
            attempt=lease.attempt,
            trial_number=trial.number,
            objective=spec.objective,
            code_dir=code.folder,
            params=trial.params,
            scoring=spec.scoring,
            memory=spec.memory,
            seed=trial_seed(spec.seed or 0, lease.ordinal),
            work_dir=str(self._node.work_dir(spec.name, trial.number)),
            checkpoint_dir=str(checkpoints),
        )

    def _checkpoints(self, lease: Lease) -> TicketCheckpoints:
        return TicketCheckpoints(self._node.checkpoint_dir(lease.spec["name"], lease.ordinal))

    def _let_go(self, lease: Lease, error: Exception) -> None:
        message = f"its supervisor failed: {type(error).__name__}: {error}"
        self._quietly(
            lambda: self._losses.lose(lease.ticket_id, lease.attempt, message=message, only_expired=False), lease
        )

    def _persistently(self, step: Callable[[], T]) -> T:
        return persistently(step, _log)

    def _quietly(self, step: Callable[[], object], lease: Lease) -> bool:
        """For what the coordinator repeats anyway: tried once, and an outage is only noted."""
        try:
            step()
        except ServiceUnavailable as error:
            self._event("left_to_coordinator", lease, level=logging.WARNING, error=error)
            return False
        except UnknownStudy as error:
            self._event("study_deleted", lease, level=logging.ERROR, error=error)
            return False
        except InvariantBroken as error:
            self._event("invariant_broken", lease, level=logging.ERROR, error=error)
        return True

    def _event(self, action: str, lease: Lease, *, level: int = logging.INFO, **fields: object) -> None:
        event(
            _log,
            action,
            level=level,
            study=lease.spec["name"],
            ticket=lease.ticket_id,
            attempt=lease.attempt,
            worker=self._node.worker_id[:8],
            **fields,
        )

    def _log_outcome(self, lease: Lease, trial: Asked, outcome: Outcome) -> None:
        self._event(
            "settle",
            lease,
            trial=trial.number,
            ending=outcome.ending,
            value=outcome.value,
            loss=outcome.loss if outcome.loss != outcome.value else None,
            size=outcome.params_count,
            seconds=outcome.duration_s,
            cause=outcome.cause,
            reason=outcome.message or None,
        )
