"""What the holder of a lease may do: claim, bind, renew, settle, give back, close.

Every statement after `claim` names (ticket, attempt) and the state that the row must be in. One that touches no
row raises LeaseLost: someone else owns the ticket now. A statement repeated after a lost acknowledgement finds
its own first try and succeeds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, Select, Update, exists, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from highnoon.shared.domain.errors import LeaseLost
from highnoon.shared.domain.lease import OOM_NEIGHBOUR, Lease, LostAttempt, Wish
from highnoon.shared.domain.states import Ending, StudyState, TicketState, WorkerState
from highnoon.shared.domain.trial import Outcome, Params
from highnoon.shared.store.database import Database
from highnoon.shared.store.fences import attempt_of, held, waiting_or_cancelled
from highnoon.shared.store.schema import attempts, db_now, studies, tickets, workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who claims: the worker's random id, and where a person would look for it."""

    worker_id: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a renewal tells the ledger about the attempt."""

    step: int | None = None
    rss_bytes: int | None = None


class Leases:
    """Statements of holders. Raises LeaseLost when the fence has moved on, ServiceUnavailable when unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def claim(self, ticket_id: int, holder: Holder, *, ttl_s: float) -> Lease | None:
        """The lease on a ticket's next attempt, or None when it is not to be had (taken, paused, over)."""
        study_runs = exists().where(studies.c.id == tickets.c.study_id, studies.c.state == StudyState.RUNNING)
        spec = select(studies.c.spec).where(studies.c.id == tickets.c.study_id).scalar_subquery()
        statement = (
            update(tickets)
            .where(
                tickets.c.id == ticket_id,
                tickets.c.state.in_([TicketState.WAITING, TicketState.QUEUED]),
                tickets.c.not_before <= db_now(),
                study_runs,
            )
            .values(
                state=TicketState.LEASED,
                attempt=tickets.c.attempt + 1,
                worker_id=holder.worker_id,
                lease_expires_at=db_now() + ttl_s,
                cancel_requested=False,
                step=None,
                rss_bytes=None,
            )
            .returning(tickets, spec.label("spec"))
        )
        with self._db.transaction() as connection:
            row = connection.execute(statement).mappings().first()
            if row is None:
                _put_back_while_paused(connection, ticket_id)
                return None
            connection.execute(
                insert(attempts).values(
                    ticket_id=ticket_id,
                    attempt=row["attempt"],
                    worker_id=holder.worker_id,
                    host=holder.host,
                    pid=holder.pid,
                    started_at=db_now(),
                )
            )
            squeezed = row["attempt"] > 1 and connection.scalar(_was_squeezed_out(ticket_id))
        before = None
        if row["trial_number"] is not None:
            before = LostAttempt(params=row["params"], trial_number=row["trial_number"])
        return Lease(
            ticket_id=ticket_id,
            attempt=row["attempt"],
            study_id=row["study_id"],
            spec=row["spec"],
            ordinal=row["ordinal"],
            losses=row["losses"],
            errors=row["errors"],
            worker_id=holder.worker_id,
            ttl_s=ttl_s,
            before=before,
            must_be_alone=bool(squeezed),
        )

    def decline(self, ticket_id: int, *, delay_s: float = 0.0) -> None:
        """Its message was taken by a node that will not claim: the ticket waits again, to be sent to another one.

        After `delay_s`: a node without room must not be asked for the same ticket all the time.
        """
        with self._db.transaction() as connection:
            connection.execute(_put_back(ticket_id).values(not_before=db_now() + delay_s))

    def bind(
        self,
        lease: Lease,
        *,
        trial_id: int,
        trial_number: int,
        params: Params,
        log_path: str,
        code: str | None = None,
    ) -> None:
        """Writes which trial and code this attempt runs, and its parameters for the attempt that may follow."""
        statement = (
            update(tickets)
            .where(_held(lease))
            .values(trial_id=trial_id, trial_number=trial_number, params=json.loads(json.dumps(params)))
        )
        with self._db.transaction() as connection:
            _require_row(connection.execute(statement).rowcount, lease, "bind")
            connection.execute(
                update(attempts).where(_attempt(lease)).values(trial_number=trial_number, log_path=log_path, code=code)
            )

    def renew(self, lease: Lease, progress: Progress) -> Wish:
        """Extends the lease by its full term and brings back what the study and the node want of the holder."""
        draining = select(workers.c.state).where(workers.c.id == lease.worker_id).scalar_subquery()
        statement = (
            update(tickets)
            .where(_held(lease))
            .values(lease_expires_at=db_now() + lease.ttl_s, step=progress.step, rss_bytes=progress.rss_bytes)
            .returning(tickets.c.cancel_requested, draining.label("worker_state"))
        )
        with self._db.transaction() as connection:
            row = connection.execute(statement).first()
        if row is None:
            raise LeaseLost(f"renew touched no row: {_named(lease)}")
        if row.cancel_requested:
            return Wish.CANCEL
        return Wish.DRAIN if row.worker_state == WorkerState.DRAINING else Wish.CARRY_ON

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        """The point of no return: the whole outcome in one fenced UPDATE. Durable when this returns."""
        statement = (
            update(tickets)
            .where(_held(lease))
            .values(
                state=TicketState.SETTLED,
                ending=outcome.ending,
                value=outcome.value,
                outcome=outcome.to_json(),
                settled_at=db_now(),
                lease_expires_at=None,
            )
        )
        with self._db.transaction() as connection:
            if connection.execute(statement).rowcount == 0:
                _require_own_settlement(connection, lease)
                return
            _end_attempt(connection, lease, outcome)

    def give_back(self, lease: Lease, outcome: Outcome, *, charge: bool, delay_s: float = 0.0) -> None:
        """The ticket may be tried again: a retry (`charge`) or a release by a drain (not charged)."""
        failed = outcome.ending is Ending.FAILED
        statement = (
            update(tickets)
            .where(_held(lease))
            .values(
                state=waiting_or_cancelled(),
                losses=tickets.c.losses + int(charge and not failed),
                errors=tickets.c.errors + int(charge and failed),
                not_before=db_now() + delay_s,
                worker_id=None,
                lease_expires_at=None,
                queued_at=None,
            )
        )
        with self._db.transaction() as connection:
            if connection.execute(statement).rowcount == 0:
                _require_own_return(connection, lease)
                return
            _end_attempt(connection, lease, outcome)

    def close(self, ticket_id: int, attempt: int) -> bool:
        """Optuna knows the settled outcome. Whoever told it closes; the second one touches no row: False."""
        statement = (
            update(tickets)
            .where(tickets.c.id == ticket_id, tickets.c.attempt == attempt, tickets.c.state == TicketState.SETTLED)
            .values(state=TicketState.CLOSED, closed_at=db_now())
        )
        with self._db.transaction() as connection:
            return connection.execute(statement).rowcount == 1


def _was_squeezed_out(ticket_id: int) -> Select[tuple[bool]]:
    return select(exists().where(attempts.c.ticket_id == ticket_id, attempts.c.cause == OOM_NEIGHBOUR))


def _end_attempt(connection: Connection, lease: Lease, outcome: Outcome) -> None:
    connection.execute(
        update(attempts)
        .where(_attempt(lease))
        .values(
            ended_at=db_now(),
            ending=outcome.ending,
            cause=outcome.cause,
            message=outcome.message,
            exit_status=outcome.exit_status,
            signal=outcome.signal,
            peak_rss_bytes=outcome.peak_rss_bytes,
            log_tail=outcome.log_tail,
            memory=outcome.memory.to_json() if outcome.memory is not None else None,
        )
    )


def _held(lease: Lease) -> ColumnElement[bool]:
    return held(lease.ticket_id, lease.attempt)


def _attempt(lease: Lease) -> ColumnElement[bool]:
    return attempt_of(lease.ticket_id, lease.attempt)


def _put_back_while_paused(connection: Connection, ticket_id: int) -> None:
    """A message for a paused study: resume must find the ticket waiting, or it would never dispatch it again."""
    paused = exists().where(studies.c.id == tickets.c.study_id, studies.c.state == StudyState.PAUSED)
    connection.execute(_put_back(ticket_id).where(paused))


def _put_back(ticket_id: int) -> Update:
    return (
        update(tickets)
        .where(tickets.c.id == ticket_id, tickets.c.state == TicketState.QUEUED)
        .values(state=TicketState.WAITING, queued_at=None)
    )


def _require_row(count: int, lease: Lease, verb: str) -> None:
    if count == 0:
        raise LeaseLost(f"{verb} touched no row: {_named(lease)}")


def _require_own_settlement(connection: Connection, lease: Lease) -> None:
    """Settled already by this very attempt: the first try was committed and its acknowledgement lost."""
    settled = connection.scalar(
        select(tickets.c.id).where(
            tickets.c.id == lease.ticket_id,
            tickets.c.attempt == lease.attempt,
            tickets.c.worker_id == lease.worker_id,
            tickets.c.state.in_([TicketState.SETTLED, TicketState.CLOSED]),
        )
    )
    _require_row(0 if settled is None else 1, lease, "settle")


def _require_own_return(connection: Connection, lease: Lease) -> None:
    ended = connection.scalar(select(attempts.c.ending).where(_attempt(lease), attempts.c.worker_id == lease.worker_id))
    _require_row(0 if ended is None or ended == Ending.LOST else 1, lease, "give back")


def _named(lease: Lease) -> str:
    return f"ticket={lease.ticket_id} attempt={lease.attempt} worker={lease.worker_id}"
