"""The supervisor: what one slot does with one message. One attempt at a time, from the message to its end.

One per Celery child, long-lived, with two threads: the monitor (this file and what it calls: pipe, memory, time
limits, drain), which never waits for a database, and the I/O thread, which runs every statement. Whatever dies
between two steps is repaired from the database by the coordinator or the agent.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import uuid4

from highnoon.shared.domain.errors import FileStoreError, LeaseLost
from highnoon.shared.domain.lease import DISK_FULL_S, Lease, dispose
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.processes import declare_only_our_code
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.database import Database
from highnoon.workers.assignments import assignment_of
from highnoon.workers.attempt_files import AttemptFiles
from highnoon.workers.attempt_log import AttemptLog
from highnoon.workers.claim import Claims, StartedAttempt
from highnoon.workers.disk import disk_trouble, is_full
from highnoon.workers.io_thread import IoThread
from highnoon.workers.monitor.resources import ResourceAllocator
from highnoon.workers.monitor.time_limits import TimeLimits
from highnoon.workers.monitor.trial_monitor import TrialMonitor
from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotStates
from highnoon.workers.store_thread import StoreThread
from highnoon.workers.telemetry import Telemetry
from highnoon.workers.trial.checkpoints import TicketCheckpoints
from highnoon.workers.trial.fork_server import ForkServer
from highnoon.workers.trial.launch import launch, now_s, wait_any
from highnoon.workers.trial.output import Output
from highnoon.workers.trial.scratch import Scratch
from highnoon.workers.trial_files import Folders, TrialFiles
from highnoon.workers.trial_services import TrialServices

T = TypeVar("T")

_log = logging.getLogger("highnoon.workers.supervisor")

EXIT_REPLACED = 71
"""This process ends so that the pool starts another one: a trial would not end, or its fork server is gone."""

_LOOK_S = 0.1
_LONGEST_PAUSE_S = 5.0
_LAST_STATEMENTS_S = 2.0
_LAST_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """What became of a message, for people who watch the queue."""

    study: str
    trial: int
    outcome: Outcome


class Supervisor:
    """Owns a slot's connections. Built in the Celery child, never before the fork that made it."""

    def __init__(self, node: Node, forks: ForkServer) -> None:
        settings = node.settings
        if settings.database_url is None or settings.redis_url is None:
            raise ValueError("a supervisor needs the addresses of PostgreSQL and Redis")
        self._node = node
        self._forks = forks
        declare_only_our_code()
        self._io = IoThread(longest_pause_s=min(_LONGEST_PAUSE_S, settings.renew_s))
        self._log = AttemptLog(_log, node.worker_id)
        self._slots = SlotStates(node.folder)
        self._store = StoreThread(settings, self._io.wakeup_fd)
        self._telemetry = Telemetry(node.folder if settings.worker_metrics_port else None)
        self._broker = Broker(settings.redis_url)
        database = Database(settings.database_url, at_most=1)
        self._attempts = Attempts(database)
        self._claims = Claims(node, database, self._broker, self._slots, self._telemetry)
        self._resources = ResourceAllocator(node)
        self._must_be_replaced = False
        self._disk_is_full = False

    def run(self, message: RunTrial) -> EndedAttempt | None:
        """One attempt, from its message to its end. Never raises for what a trial, a study's data or an outage does."""
        ended = None
        if not self._forks.is_alive():
            # Before there is a lease to lose: another supervisor, or the next one here, takes the ticket.
            self.decline(message, delay_s=0.0)
            self._leave_if_worn_out()
        with ExitStack() as work:
            try:
                work.enter_context(self._slots.at_work(message.study, message.ticket))
            except OSError as error:
                # Its disk is full, for instance. Other nodes may do better.
                self._handed_back(error)
                self.decline(message, delay_s=DISK_FULL_S)
                return None
            work.enter_context(self._telemetry.attempt())
            started = self._start(message)
            if started is not None:
                ended = self._attempt(started)
        self._io.submit(self._broker.notify)
        self._leave_if_worn_out()
        return ended

    def decline(self, message: RunTrial, *, delay_s: float) -> None:
        """The ticket waits again for `delay_s`, for this node or another one."""
        self._result_of(self._io.submit(lambda: self._claims.decline(message, delay_s=delay_s)))

    def close(self) -> None:
        """Waits a moment for the statements that are under way."""
        self._io.stop(_LAST_STATEMENTS_S)
        self._store.close()
        self._resources.close()
        self._slots.close()

    def _start(self, message: RunTrial) -> StartedAttempt | None:
        try:
            started = self._result_of(self._io.submit(lambda: self._claims.start(message), persistent=True))
        except Exception:  # nothing has been written: the coordinator sends the message again
            _log.exception("action=start_failed study=%s ticket=%d", message.study, message.ticket)
            return None
        if started is not None:
            self._log.event("start", started.lease, trial=started.lease.trial_number)
        return started

    def _attempt(self, started: StartedAttempt) -> EndedAttempt | None:
        scratch = Scratch(self._node.work_dir(started.study.spec.name, started.lease.trial_number))
        services = self._services(started, scratch)
        try:
            outcome = started.code.refusal or self._tried(started, services, scratch)
            self._finish(started, services, outcome)
            return EndedAttempt(study=started.study.spec.name, trial=started.lease.trial_number, outcome=outcome)
        except LeaseLost as error:
            self._log.event("lease_lost", started.lease, level=logging.WARNING, reason=error)
        except Exception as error:
            # A fault of ours or of the study's data must not hold the ticket until its lease runs out.
            lease = started.lease
            _log.exception("action=attempt_abandoned ticket=%d attempt=%d", lease.ticket_id, lease.attempt)
            self._release(lease, error)
        finally:
            # After the outcome is written: half a million files take longer than a lease.
            scratch.remove()
        return None

    def _tried(self, started: StartedAttempt, services: TrialServices, scratch: Scratch) -> Outcome:
        """The outcome of the trial; where the node's disk is full, the ticket is handed back, which needs no disk."""
        try:
            self._slots.add_attempt(started.lease.attempt, str(scratch.work_dir))
            scratch.lock()
            outcome = self._run_trial(started, services)
        except FileStoreError as error:
            return AttemptFiles(self._node, services).outcome_without(error)
        except OSError as error:
            if not is_full(error):
                raise
            return self._handed_back(error)
        if outcome.cause == Cause.NOT_BEGUN and (trouble := disk_trouble(*self._node.written_folders)):
            return self._handed_back(trouble)
        self._disk_is_full = False
        return outcome

    def _handed_back(self, trouble: object) -> Outcome:
        """Logs the trouble once until a trial could run again."""
        if not self._disk_is_full:
            self._disk_is_full = True
            event(_log, "disk", level=logging.ERROR, worker=self._node.worker_id[:8], error=trouble)
        return Outcome(ending=Ending.RELEASED, cause=Cause.DISK, message=f"handed back by {self._node.host}: {trouble}")

    def _run_trial(self, started: StartedAttempt, services: TrialServices) -> Outcome:
        """Launches the trial and monitors it to its end."""
        lease, spec, settings = started.lease, started.study.spec, self._node.settings
        checkpoints = AttemptFiles(self._node, services).begun_checkpoints(lease)
        assignment = assignment_of(started, self._node, checkpoints=checkpoints, saving=self._store.limits)
        output = Output(
            self._node.log_path(spec.name, lease.trial_number),
            limit_bytes=settings.log_limit_bytes,
            tail_bytes=settings.log_tail_bytes,
        )
        limits = TimeLimits(
            trial_timeout_s=spec.trial_timeout, stall_timeout_s=spec.stall_timeout, kill_grace_s=settings.kill_grace_s
        )
        with closing(output), self._resources.take(spec, services, alone=lease.must_be_alone) as resources:
            if resources.refusal is not None:
                return resources.refusal
            needs_spawn = not self._node.fork_works or started.code.import_settings
            # A thread cannot be confined, and its study does not decide whether it is.
            wants_fork = spec.isolation == "fork" or (spec.isolation == "none" and settings.confine_trials == "require")
            isolation = ("spawn" if needs_spawn else "fork") if wants_fork else spec.isolation
            self._forks.next_cgroup = None
            trial = launch(isolation, resources.marked(assignment), output, self._forks)
            wait_s = settings.kill_grace_s
            try:
                self._slots.add_trial(trial.pid)
                self._forks.next_cgroup = resources.next_cgroup()
                memory = resources.memory_of(trial.pid)
                services.attend(memory)
                monitor = TrialMonitor(trial, output, services, limits, memory, spec.scoring)
                outcome = monitor.run()
                if monitor.has_left_late:
                    grace_s = settings.kill_grace_s
                    self._log.event("killed_after_result", lease, level=logging.WARNING, grace_s=grace_s)
                # It has waited for the end, and renewed the lease meanwhile; from here on nothing does.
                wait_s = _LAST_LOOK_S
            finally:
                self._must_be_replaced = not trial.clean_up(wait_s)
                if not self._must_be_replaced:
                    self._slots.forget_trial()
        return self._judged(outcome, trial.pid, lease)

    def _judged(self, outcome: Outcome, pid: int | None, lease: Lease) -> Outcome:
        """The outcome with what only the supervisor knows: a drain, and a trial that SIGKILL does not end."""
        if self._must_be_replaced:
            # It hangs in the kernel, or is a thread. It holds neither its outcome nor the slot.
            self._log.event("unkillable_trial", lease, level=logging.ERROR, pid=pid)
            what = "its thread" if pid is None else f"its process {pid} on {self._node.host}"
            outcome = replace(outcome, message=f"{outcome.message}; {what} could not be ended")
        if outcome.ending is Ending.KILLED and outcome.signal == "SIGTERM" and self._node.drain.is_given():
            # A service manager may have signalled the trial as well: what SIGTERM ends during a drain is handed back.
            return replace(outcome, ending=Ending.RELEASED, cause=Cause.DRAIN)
        return outcome

    def _leave_if_worn_out(self) -> None:
        """Ends this process, and the pool starts another one."""
        if self._must_be_replaced or not self._forks.is_alive():
            event(_log, "replaced", level=logging.WARNING, worker=self._node.worker_id[:8], pid=os.getpid())
            self.close()
            os._exit(EXIT_REPLACED)

    def _finish(self, started: StartedAttempt, services: TrialServices, outcome: Outcome) -> None:
        """Decides what becomes of the ticket and writes it in one call: the point of no return."""
        lease, spec = started.lease, started.study.spec
        disposition, delay_s = dispose(
            outcome,
            attempt=lease.attempt,
            infrastructure_failures=lease.infrastructure_failures,
            errors=lease.errors,
            max_attempts=spec.max_attempts,
            retry_errors=spec.retry_errors,
        )
        files = AttemptFiles(self._node, services)
        outcome = files.added_to(outcome, disposition, keeps_checkpoint=spec.keeps_last_checkpoints)
        token = uuid4().hex

        def finish() -> str | None:
            services.flush()
            return self._attempts.finish(
                lease,
                outcome,
                disposition=disposition,
                delay_s=delay_s,
                reports=services.unwritten,
                token=token,
            )

        with self._telemetry.step("finish"):
            finished = self._io.submit(finish, persistent=True)
            if not self._has_ended(finished):
                self._log.event("left_to_reaper", lease, level=logging.WARNING, ending=outcome.ending)
                return
            foreign_ending = finished.result()
        self._telemetry.decided(outcome, disposition, foreign_ending)
        files.end_checkpoints(lease, disposition)
        self._log.finish(lease, outcome, disposition, foreign_ending)

    def _release(self, lease: Lease, error: Exception) -> None:
        message = f"its supervisor failed: {type(error).__name__}: {error}"
        reaped = self._io.submit(
            lambda: self._attempts.reap(lease.ticket_id, lease.attempt, message=message, only_expired=False)
        )
        try:
            self._result_of(reaped)
        except Exception as failure:  # the reaper finds it when its lease has run out
            self._log.event("left_to_reaper", lease, level=logging.WARNING, error=failure)

    def _result_of(self, future: Future[T]) -> T | None:
        """Waits for a result while it obeys a drain; None when there will be none."""
        return future.result() if self._has_ended(future) else None

    def _has_ended(self, future: Future[T]) -> bool:
        """Waits for the I/O thread. False when the node's drain does not allow it any longer."""
        give_up_at: float | None = None
        while not future.done():
            if wait_any([self._io.wakeup_fd], _LOOK_S):
                self._io.clear_wakeup()
            elif give_up_at is None and self._node.drain.is_due():
                give_up_at = now_s() + min(_LAST_STATEMENTS_S, self._node.settings.kill_grace_s)
            elif give_up_at is not None and now_s() > give_up_at:
                return not future.cancel()
        return True

    def _services(self, started: StartedAttempt, scratch: Scratch) -> TrialServices:
        lease, name = started.lease, started.study.spec.name
        checkpoints = TicketCheckpoints(self._node.checkpoint_dir(name, lease.ordinal)).folder_of(lease.attempt)
        folders = Folders(saved=scratch.saved, checkpoints=checkpoints)
        files = TrialFiles(self._store, self._io, self._attempts, lease, folders)
        return TrialServices(self._node, self._io, self._attempts, lease, started.study.optuna, files)
