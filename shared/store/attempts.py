"""What the holder of a lease does with a ticket, each in one call to the database, and what becomes of dead holders.

Every call after `start` names (ticket, attempt). One that finds this attempt no longer running raises LeaseLost:
another worker has the ticket now. A call repeated after a lost acknowledgement finds its own first try and succeeds.
The transactions themselves are in `functions.sql`. Optuna is imported only by what a supervisor calls.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.lease import (
    RETRY_DELAY_S,
    Candidate,
    Disposition,
    EnqueuedTrial,
    Holder,
    Lease,
    LostAttempt,
    Progress,
    StartRefusal,
)
from highnoon.shared.domain.result_parsing import LARGEST_STEP
from highnoon.shared.domain.states import Cause, Ending, TicketState
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, tickets
from highnoon.shared.store.trial_results import attr_texts, json_text, result_json, trial_result

if TYPE_CHECKING:
    from highnoon.shared.store.optuna_trials import NewTrial

NUMBER = "{number}"
"""In a log's path: the trial's number with at least five digits, which is given by the start."""


class Attempts:
    """The statements of attempts. Raises LeaseLost, ServiceUnavailable, ServiceRefused."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def look(self, ticket_id: int) -> Candidate | None:
        """What the next attempt's point depends on; None for a ticket that is taken, over or not due. Takes no lock."""
        found = self._db.call(_LOOK, ticket=ticket_id, neighbour=Cause.OOM_NEIGHBOUR)
        return None if found is None else _candidate(found)

    def start(
        self,
        candidate: Candidate,
        new: NewTrial,
        holder: Holder,
        *,
        ttl_s: float,
        log_path: str,
        code: str | None = None,
        environment: str | None = None,
    ) -> Lease | StartRefusal:
        """Starts the attempt after `candidate.attempt` at the point `new`. `log_path` may contain `NUMBER`."""
        begins = candidate.before is None and new.extension is not None
        first_checkpoint = new.extension.first_checkpoint if begins and new.extension else None
        answer = self._db.call(
            _START,
            ticket=candidate.ticket_id,
            attempt=candidate.attempt,
            spec_version=candidate.spec_version,
            worker=holder.worker_id,
            host=holder.host,
            pid=holder.pid,
            ttl=ttl_s,
            params=json_text(dict(new.params)),
            trial=_trial_json(new, environment, first_checkpoint),
            log_path=log_path,
            code=code,
        )
        if "refused" in answer:
            return StartRefusal(answer["refused"])
        return Lease(
            ticket_id=candidate.ticket_id,
            attempt=answer["attempt"],
            spec=candidate.spec,
            ordinal=candidate.ordinal,
            infrastructure_failures=candidate.infrastructure_failures,
            errors=candidate.errors,
            ttl_s=ttl_s,
            trial_id=answer["trial_id"],
            trial_number=answer["trial_number"],
            # Stored already when this call repeats one whose acknowledgement was lost.
            params=answer.get("params", new.params),
            before=candidate.before,
            must_be_alone=candidate.must_be_alone,
            checkpoint=first_checkpoint or candidate.checkpoint,
            extension=new.extension,
        )

    def renew(self, lease: Lease, progress: Progress, reports: Sequence[Report] = ()) -> bool:
        """Extends the lease by its full term and adds reports. Returns whether a person has cancelled the trial."""
        is_cancelled: bool = self._db.call(
            _RENEW,
            ticket=lease.ticket_id,
            attempt=lease.attempt,
            ttl=lease.ttl_s,
            step=progress.step,
            rss_bytes=progress.rss_bytes,
            reports=_reports(reports),
            metric_history=None if progress.metric_history is None else json_text(progress.metric_history),
        )
        return is_cancelled

    def add(self, lease: Lease, new: NewTrial) -> None:
        """Adds parameters and attributes to the running trial; the ticket keeps the parameters for a later attempt."""
        self._db.call(
            _ADD,
            ticket=lease.ticket_id,
            attempt=lease.attempt,
            params=json_text({**lease.params, **new.params}) if new.params else None,
            trial=_trial_json(new),
        )

    def add_reports(self, lease: Lease, reports: Sequence[Report]) -> None:
        """Adds reports at once, for a pruner's decision; the first report of a step stays."""
        self._db.call(_ADD_REPORTS, ticket=lease.ticket_id, attempt=lease.attempt, reports=_reports(reports))

    def note_file(self, lease: Lease, file_id: str) -> None:
        """Notes a file before it is written to the store, so that it is removed unless it comes to count."""
        self._db.call(_NOTE_FILE, file=file_id, ticket=lease.ticket_id, attempt=lease.attempt)

    def keep_checkpoint(self, lease: Lease, checkpoint: Checkpoint) -> None:
        """The ticket's next attempt goes on from this checkpoint, which is in the store."""
        checkpoint_json = json_text(asdict(checkpoint))
        self._db.call(_KEEP_CHECKPOINT, ticket=lease.ticket_id, attempt=lease.attempt, checkpoint=checkpoint_json)

    def finish(
        self,
        lease: Lease,
        outcome: Outcome,
        *,
        disposition: Disposition,
        token: str,
        delay_s: float = 0.0,
        reports: Sequence[Report] = (),
    ) -> str | None:
        """The only point of no return: ticket, Optuna trial and attempt end together.

        Returns how another program had ended the Optuna trial, where that differs: its ending stays in Optuna, ours is
        in the ledger. Make `token` once per decision and repeat the call with it until it is acknowledged.
        """
        foreign: str | None = self._db.call(
            _FINISH,
            ticket=lease.ticket_id,
            attempt=lease.attempt,
            token=token,
            disposition=disposition.value,
            delay=delay_s,
            outcome=json_text(outcome.to_json()),
            result=result_json(trial_result(outcome, has_goals=bool(lease.spec.get("objectives")))),
            reports=_reports(reports),
        )
        return foreign

    def reap(self, ticket_id: int, attempt: int, *, message: str, only_expired: bool) -> Disposition | None:
        """The holder is dead (its agent reports it), or its lease ran out (`only_expired`): retry, or close as lost.

        None when the attempt does not hold the ticket any more, or has not expired after all.
        """
        outcome = Outcome(ending=Ending.LOST, cause=Cause.LOST, message=message)
        answer = self._db.call(
            _REAP,
            ticket=ticket_id,
            attempt=attempt,
            only_expired=only_expired,
            retry_delay=RETRY_DELAY_S,
            outcome=json_text(outcome.to_json()),
            result=result_json(trial_result(outcome)),
        )
        return None if answer is None else Disposition(answer)

    def held(self, ticket_id: int, *, worker_id: str, pid: int) -> int | None:
        """The attempt of this ticket that this holder has under way; None without one."""
        ours = (attempts.c.ticket_id == ticket_id, attempts.c.worker_id == worker_id, attempts.c.pid == pid)
        found = self._db.rows(select(attempts.c.attempt).where(*ours, attempts.c.ended_at.is_(None)))
        return found[0].attempt if found else None

    def exhaust(self, candidate: Candidate) -> None:
        """The search space has no further point for this study: it stops as exhausted, and the coordinator drops
        its open tickets.

        Does nothing when the study was changed since the look.
        """
        self._db.call(_EXHAUST, study=candidate.study_id, spec_version=candidate.spec_version)

    def decline(self, ticket_id: int, *, delay_s: float = 0.0) -> None:
        """The message was taken by a node that will not start it: the ticket waits again, for another one.

        After `delay_s`: a node without memory to spare must not get the same ticket all the time.
        """
        queued = update(tickets).where(tickets.c.id == ticket_id, tickets.c.state == TicketState.QUEUED)
        waiting = {"state": TicketState.WAITING, "queued_at": None, "not_before": db_now() + delay_s}
        self._db.changed(queued.values(**waiting))


_LOOK = "select hn_look_2(%(ticket)s, %(neighbour)s)"
_START = (
    "select hn_start_attempt_2(%(ticket)s, %(attempt)s, %(spec_version)s, %(worker)s, %(host)s, %(pid)s, %(ttl)s,"
    " cast(%(params)s as json), cast(%(trial)s as json), %(log_path)s, %(code)s)"
)
_RENEW = (
    "select hn_renew_2(%(ticket)s, %(attempt)s, %(ttl)s, cast(%(step)s as bigint), cast(%(rss_bytes)s as bigint),"
    " cast(%(reports)s as json), cast(%(metric_history)s as json))"
)
_ADD = "select hn_add_to_trial_1(%(ticket)s, %(attempt)s, cast(%(params)s as json), cast(%(trial)s as json))"
_ADD_REPORTS = "select hn_add_reports_1(%(ticket)s, %(attempt)s, cast(%(reports)s as json))"
_FINISH = (
    "select hn_finish_attempt_1(%(ticket)s, %(attempt)s, %(token)s, %(disposition)s, %(delay)s,"
    " cast(%(outcome)s as json), cast(%(result)s as json), cast(%(reports)s as json))"
)
_NOTE_FILE = "select hn_note_file_1(%(ticket)s, %(attempt)s, %(file)s)"
_KEEP_CHECKPOINT = "select hn_keep_checkpoint_1(%(ticket)s, %(attempt)s, cast(%(checkpoint)s as json))"
_REAP = (
    "select hn_reap_1(%(ticket)s, %(attempt)s, %(only_expired)s, %(retry_delay)s, cast(%(outcome)s as json),"
    " cast(%(result)s as json))"
)
_EXHAUST = "select hn_exhaust_1(%(study)s, %(spec_version)s)"


def _candidate(row: Mapping[str, Any]) -> Candidate:
    before = None
    if row["trial_number"] is not None:
        before = LostAttempt(params=row["params"], trial_number=row["trial_number"])
    waiting = None
    if row["waiting_id"] is not None:
        from highnoon.shared.store.optuna_trials import extension_of, fixed_params

        waiting = EnqueuedTrial(
            trial_id=row["waiting_id"],
            number=row["waiting_number"],
            fixed=fixed_params(row["waiting_fixed"], row["waiting_params"] or ()),
            extension=extension_of(row["waiting_extension"]),
        )
    return Candidate(
        ticket_id=row["id"],
        study_id=row["study_id"],
        study_name=row["name"],
        spec=row["spec"],
        spec_version=row["spec_version"],
        ordinal=row["ordinal"],
        attempt=row["attempt"],
        infrastructure_failures=row["infrastructure_failures"],
        errors=row["errors"],
        before=before,
        waiting=waiting,
        must_be_alone=row["must_be_alone"],
        checkpoint=None if row["checkpoint"] is None else Checkpoint(**row["checkpoint"]),
    )


def _trial_json(new: NewTrial, environment: str | None = None, checkpoint: Checkpoint | None = None) -> str:
    """As `hn_start_attempt_2` in functions.sql takes it; `hn_add_to_trial_1` reads parameters and attributes only."""
    from highnoon.shared.store.optuna_trials import param_rows

    return json_text(
        {
            "waiting": new.waiting_trial_id,
            "params": [[row["param_name"], row["param_value"], row["distribution_json"]] for row in param_rows(new)],
            "user_attrs": attr_texts(new.user_attrs),
            "system_attrs": attr_texts(new.system_attrs),
            "environment": environment,
            **({} if checkpoint is None else {"checkpoint": asdict(checkpoint)}),
        }
    )


def _reports(reports: Sequence[Report]) -> str:
    rows = [_report_row(report) for report in reports if abs(report.step) <= LARGEST_STEP]
    return json.dumps(rows)


def _report_row(report: Report) -> list[Any]:
    value = report.value
    if math.isnan(value):
        return [report.step, None, "NAN"]
    if math.isinf(value):
        return [report.step, None, "INF_POS" if value > 0 else "INF_NEG"]
    return [report.step, value, "FINITE"]
