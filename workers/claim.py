"""From a message to a started attempt: admit, look, sample, start. Runs in the I/O thread of its supervisor.

Nothing is written before the point is chosen, and then all of it in one call. A ticket whose message was taken but
that is not started here is declined, or the coordinator would have to find out that its message is lost.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from highnoon.shared.domain.errors import (
    PluginFailed,
    RowLocked,
    ServiceUnavailable,
    SpaceExhausted,
    UnknownStudy,
)
from highnoon.shared.domain.lease import Candidate, Holder, Lease, StartRefusal
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.control import Control
from highnoon.shared.store.database import Database
from highnoon.shared.store.environments import Environments
from highnoon.shared.store.node_queries import NodeQueries
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.outages import retry_until_available
from highnoon.shared.store.point_choice import LastCheckpoints
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.workers.claim_faults import ClaimFaults
from highnoon.workers.code.code_gate import Code, CodeGate
from highnoon.workers.monitor.admission import Admission
from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotStates
from highnoon.workers.telemetry import Telemetry

_log = logging.getLogger("highnoon.workers.claim")

_NO_MEMORY_S = 1.0
"""How long a ticket waits for which this node has no memory now; other nodes and other tickets go first."""

_UNUSABLE_S = 10.0
"""How long a ticket waits that this node cannot start, because of its study's version or data."""

_PLUGIN_AGAIN_S = 60.0
"""How long a study waits here whose own sampler or pruner has failed: each try may cost seconds."""

_NOT_CONFINED = (
    "this node confines trials (HIGHNOON_CONFINE_TRIALS=require), and a sampler or pruner of the study's own cannot be "
    "confined; use one of the built-in ones, or a node without it"
)

_TRIES = 20
"""Lost races for an enqueued trial, or changes of the study, before the ticket goes back."""


_MOST_OPEN = 16
"""Studies that a supervisor keeps open, with their plug-ins and grids: those that it used last. Optuna's storage keeps
their histories until the supervisor is replaced, after `max_tasks_per_child` trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study as this supervisor has it open: one version of its specification, and Optuna's side of it."""

    version: int
    spec: StudySpec
    optuna: OptunaStudy


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedAttempt:
    """An attempt that this supervisor holds, and what its trial process will run."""

    lease: Lease
    study: OpenStudy
    code: Code
    repeat_bar: float | None = None


@dataclass(frozen=True, slots=True)
class _Decline:
    """The ticket goes back, and waits so long."""

    delay_s: float


class Claims:
    """Starts attempts for one supervisor. Raises ServiceUnavailable; `start` may then simply be called again."""

    def __init__(self, node: Node, database: Database, broker: Broker, slots: SlotStates, telemetry: Telemetry) -> None:
        self._node = node
        self._broker = broker
        self._telemetry = telemetry
        self._holder = Holder(worker_id=node.worker_id, host=node.host, pid=os.getpid())
        self._attempts = Attempts(database)
        self._files = StoredFiles(database)
        self._environments = Environments(database)
        self._environment_is_kept = False
        self._database = database
        self._code = CodeGate(node.settings, Bundles(database))
        self._admission = Admission(node.folder / "admission", node.slots, slots, NodeQueries(database).memory_peaks)
        self._open: dict[int, OpenStudy] = {}
        self._faults = ClaimFaults(node, Control(database))
        self._plugins_wait: dict[tuple[int, int], float] = {}

    @cached_property
    def _store(self) -> OptunaStore:
        """Made at its first use, in the I/O thread, and on its connection."""
        database = self._database
        return OptunaStore(database.url, create_schema=False, reads_running_reports=False, engine=database.engine)

    def start(self, message: RunTrial) -> StartedAttempt | None:
        """The attempt that the message leads to; None when the ticket is not to be had or goes back."""
        for _ in range(_TRIES):
            candidate = self._look(message)
            if candidate is None:
                return None
            answer = self._start(candidate, message)
            if isinstance(answer, StartedAttempt):
                return answer
            if isinstance(answer, _Decline):
                self.decline(message, delay_s=answer.delay_s)
                return None
            if answer is StartRefusal.STUDY_DELETED:
                if (deleted := self._open.pop(candidate.study_id, None)) is not None:
                    deleted.optuna.close_plugins()
                self._faults.log("study_deleted", candidate)
            if answer is not StartRefusal.CHANGED:
                return None
        self.decline(message, delay_s=_NO_MEMORY_S)
        return None

    def _look(self, message: RunTrial) -> Candidate | None:
        try:
            return self._attempts.look(message.ticket)
        except ServiceUnavailable:
            raise
        except Exception as error:  # for instance an enqueued trial of another program that cannot be read
            fields = {"study": message.study, "ticket": message.ticket, "worker": self._node.worker_id[:8]}
            event(_log, "declined", level=logging.ERROR, **fields, reason=f"{type(error).__name__}: {error}")
            self.decline(message, delay_s=_UNUSABLE_S)
            return None

    def decline(self, message: RunTrial, *, delay_s: float = 0.0) -> None:
        """The ticket waits again, for this node or another one. An outage leaves that to the coordinator."""
        try:
            self._attempts.decline(message.ticket, delay_s=delay_s)
            self._broker.notify()
        except ServiceUnavailable as error:
            event(_log, "outage", level=logging.WARNING, during="decline", ticket=message.ticket, error=error)

    def _start(self, candidate: Candidate, message: RunTrial) -> StartedAttempt | StartRefusal | _Decline:
        is_draining = self._node.drain.is_given
        try:
            study = self._opened(candidate)
            admitted = None
            if not is_draining():
                admitted = self._admission.admit(message, candidate.study_id, study.spec, must_end=is_draining)
            if admitted is None:
                return _Decline(0.0 if is_draining() else _NO_MEMORY_S)
            code = self._code.pass_or_refuse(study.spec)
            bar = study.optuna.repeat_bar()
            if study.spec.plugins:
                lease = self._with_plugins(candidate, study, code)
            else:
                lease = self._sample_and_start(candidate, study, code)
        except RowLocked as error:  # by another client of this study: the others must not wait for it
            self._faults.log_declined(candidate, error)  # and no fault of the study: a lock is held for a moment
            return _Decline(_UNUSABLE_S)
        except ServiceUnavailable:
            raise
        except UnknownStudy:
            return StartRefusal.STUDY_DELETED
        except PluginFailed:
            return _Decline(_UNUSABLE_S)
        except SpaceExhausted as exhausted:
            self._faults.log("exhausted", candidate, reason=exhausted)
            self._attempts.exhaust(candidate)
            return StartRefusal.NOT_AVAILABLE
        except Exception as error:  # a fault in one study's data must not end its supervisor
            self._faults.report_declined(candidate, error)
            return _Decline(_UNUSABLE_S)
        if isinstance(lease, StartRefusal):
            return lease
        lease = replace(lease, must_be_alone=lease.must_be_alone or admitted.must_be_alone)
        return StartedAttempt(lease=lease, study=study, code=code, repeat_bar=bar)

    def _opened(self, candidate: Candidate) -> OpenStudy:
        """Opened once for each version of its specification. Raises InvalidInput for what a newer HighNoon wrote."""
        for one in self._open.values():
            one.optuna.close_plugins(if_idle=True)
        known = self._open.pop(candidate.study_id, None)
        if known is not None and known.version == candidate.spec_version:
            self._open[candidate.study_id] = known
            return known
        if known is not None:
            known.optuna.close_plugins()
        spec = StudySpec.from_json(candidate.spec)
        study = OpenStudy(version=candidate.spec_version, spec=spec, optuna=self._store.open(spec))
        if spec.ends_trials_early or spec.defines_by_run:
            # Now, and not at the first report or suggestion: the lease is not renewed while a long history is read.
            study.optuna.load_history()
        self._open[candidate.study_id] = study
        while len(self._open) > _MOST_OPEN:
            self._open.pop(next(iter(self._open))).optuna.close_plugins()
        return study

    def _with_plugins(self, candidate: Candidate, study: OpenStudy, code: Code) -> Lease | StartRefusal:
        """Once its own sampler or pruner has failed, the study waits; no other study does. Raises PluginFailed."""
        if time.monotonic() < self._plugins_wait.get((candidate.study_id, candidate.spec_version), 0.0):
            raise PluginFailed("has failed a moment ago")
        if self._node.settings.confine_trials == "require":
            self._plugin_failed(candidate, _NOT_CONFINED)
            raise PluginFailed(_NOT_CONFINED)
        fault = study.optuna.plugin_fault()  # of a trial that has run since
        try:
            if fault is not None:
                raise PluginFailed(fault)
            if code.refusal is None:
                study.optuna.allow_plugins(None if code.folder is None else Path(code.folder))
            return self._sample_and_start(candidate, study, code)
        finally:
            fault = fault or study.optuna.plugin_fault()
            if fault is not None:
                self._plugin_failed(candidate, fault)

    def _plugin_failed(self, candidate: Candidate, fault: str) -> None:
        self._plugins_wait[candidate.study_id, candidate.spec_version] = time.monotonic() + _PLUGIN_AGAIN_S
        self._faults.report_plugin(candidate, fault)

    def _sample_and_start(self, candidate: Candidate, study: OpenStudy, code: Code) -> Lease | StartRefusal:
        with self._telemetry.step("sample"):
            new = study.optuna.choose(
                ordinal=candidate.ordinal,
                waiting=candidate.waiting,
                before=candidate.before,
                kept=lambda: LastCheckpoints(kept=self._files.extendable(candidate.study_id)),
            )
        log_path = str(self._node.log_path(study.spec.name, None))
        environment = self._node.environment
        if environment is not None and not self._environment_is_kept:
            self._environments.keep(environment.digest, environment.content)
            self._environment_is_kept = True
        with self._telemetry.step("start"):
            # The same call again after an outage: its first try may have been committed, and is then found.
            return retry_until_available(
                lambda: self._attempts.start(
                    candidate,
                    new,
                    self._holder,
                    ttl_s=self._node.settings.lease_s,
                    log_path=log_path,
                    code=code.digest,
                    environment=None if environment is None else environment.digest,
                ),
                _log,
                wait_for_locks=False,
            )
