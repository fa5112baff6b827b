"""What people do to studies (submit, pause, resume, cancel, retry) and what they may read of them.

A study's specification is stored as the JSON of its StudySpec; this file does not interpret it beyond what the
caller passes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, and_, case, delete, func, insert, literal, or_, select, text, update
from sqlalchemy.engine import RowMapping

from highnoon.shared.domain.errors import ServiceError, StudyConflict, UnknownStudy
from highnoon.shared.domain.states import GIVEN_UP, Ending, StudyState, TicketState, known_ending
from highnoon.shared.store.attempt_records import AttemptRecord, attempt_record
from highnoon.shared.store.audit import record
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, studies, tickets

_MANY = 1000
"""Tickets that change what the planner of PostgreSQL should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One study as the ledger holds it; times are epoch seconds on the database's clock."""

    id: int
    name: str
    state: StudyState
    stop_reason: str | None
    queue: str
    spec: dict[str, Any]
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    spec_version: int = 1
    optuna_study_id: int | None = None
    fault: str | None = None

    @property
    def is_over(self) -> bool:
        """True when nothing of it will run again unless a person asks."""
        return self.state in (StudyState.FINISHED, StudyState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCounts:
    """Tickets by state, and closed ones by how their last attempt ended."""

    by_state: Mapping[TicketState, int] = field(default_factory=dict)
    by_ending: Mapping[Ending, int] = field(default_factory=dict)
    attempts: int = 0

    @property
    def total(self) -> int:
        """All tickets ever made for the study."""
        return sum(self.by_state.values())

    @property
    def closed(self) -> int:
        """Trials that count for n_trials."""
        return self.by_state.get(TicketState.CLOSED, 0)

    @property
    def running(self) -> int:
        """Attempts under way now."""
        return self.by_state.get(TicketState.RUNNING, 0)


class Studies:
    """Statements of people. Look-ups by name raise UnknownStudy; all raise ServiceUnavailable when unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, name: str) -> StudyRecord | None:
        """The study of that name, or None."""
        found = self._db.rows(select(studies).where(studies.c.name == name))
        return record_of(found[0]._mapping) if found else None

    def get(self, name: str) -> StudyRecord:
        """The study of that name. Raises UnknownStudy."""
        found = self.find(name)
        if found is None:
            raise UnknownStudy(f"no study named {name!r} in this ledger")
        return found

    def all(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        return [record_of(row._mapping) for row in self._db.rows(select(studies).order_by(studies.c.id))]

    def create(
        self, name: str, spec: Mapping[str, Any], *, queue: str, n_trials: int, optuna_study_id: int | None = None
    ) -> StudyRecord:
        """A running study with `n_trials` waiting tickets, in one transaction.

        Raises IntegrityError when the name is taken (two submitted at once): look it up and join it.
        """
        with self._db.transaction() as connection:
            new = {"name": name, "spec": dict(spec), "queue": queue, "optuna_study_id": optuna_study_id}
            row = connection.execute(insert(studies).values(**new, submitted_at=db_now()).returning(studies))
            created = record_of(row.mappings().one())
            _add_tickets(connection, created.id, n_trials)
            record(connection, "create", study=name, trials=n_trials, objective=spec.get("objective"))
        self._analyze(n_trials)
        return created

    def extend(self, study_id: int, spec: Mapping[str, Any], *, n_trials: int) -> int:
        """Makes it a live study of at least `n_trials` tickets; returns how many it gained. A paused one stays paused.

        Tickets that a limit had dropped come first: an ordinal may be a grid's point, and no other has it.
        Raises StudyConflict for a study that was cancelled: that is final.
        """
        with self._db.transaction() as connection:
            state, _ = _lock(connection, study_id)
            if state in GIVEN_UP:
                raise StudyConflict("the study was cancelled meanwhile: give the new one another name")
            missing = max(0, n_trials - _count(connection, study_id))
            _add_tickets(connection, study_id, missing)
            _revive_study(connection, study_id, spec)
            record(connection, "extend", study_id=study_id, trials=n_trials, added=missing)
        self._analyze(missing)
        return missing

    def add_trials(
        self,
        study_id: int,
        count: int,
        *,
        at_most: int,
        action: str = "add trials",
        details: Mapping[str, Any] | None = None,
    ) -> int:
        """`count` more trials, but not more than `at_most` in all; returns how many it gained.

        Counted under the study's lock: two that add at the same time both add. 0, too, for a study that was cancelled.
        The audit has it as `action` with `details`, by default how many were added.
        """
        with self._db.transaction() as connection:
            state, spec = _lock(connection, study_id)
            have = _count(connection, study_id)
            added = 0 if state in GIVEN_UP else max(0, min(count, at_most - have))
            if added:
                _add_tickets(connection, study_id, added)
                _revive_study(connection, study_id, {**spec, "n_trials": have + added})
                record(connection, action, study_id=study_id, **({"added": added} if details is None else details))
        self._analyze(added)
        return added

    def set_share(self, study_id: int, changes: Mapping[str, Any]) -> bool:
        """Changes `priority` and `max_running` of its specification. False when it is over.

        The version stays: no trial that was sampled depends on them.
        """
        with self._db.transaction() as connection:
            state, spec = _lock(connection, study_id)
            if state not in (StudyState.RUNNING, StudyState.PAUSED):
                return False
            changed = update(studies).where(studies.c.id == study_id).values(spec={**spec, **changes})
            connection.execute(changed)
            record(connection, "set", study_id=study_id, **changes)
        return True

    def pause(self, study_id: int) -> bool:
        """No new attempts; running ones end by themselves. False unless it was running."""
        return self._change(study_id, "pause", (StudyState.RUNNING,), StudyState.PAUSED)

    def resume(self, study_id: int) -> bool:
        """Running again. False unless it was paused."""
        return self._change(study_id, "resume", (StudyState.PAUSED,), StudyState.RUNNING)

    def cancel(self, study_id: int) -> bool:
        """Gives up what has not begun and asks holders to stop. False when it is over already.

        Enqueued Optuna trials are failed: no ticket is left that would take them.
        """
        with self._db.transaction() as connection:
            state, _ = _lock(connection, study_id)
            if state not in (StudyState.RUNNING, StudyState.PAUSED):
                return False
            changed = {"state": StudyState.CANCELLING, "stop_reason": "cancelled"}
            connection.execute(update(studies).where(studies.c.id == study_id).values(**changed, **_NEXT_VERSION))
            request_cancel(connection, study_id)
            connection.execute(_FAIL_ENQUEUED, {"study": study_id})
            record(connection, "cancel", study_id=study_id)
        return True

    def retry(self, study_id: int, *, endings: Collection[Ending], numbers: tuple[int, ...] = ()) -> int:
        """Gives closed tickets of these endings (or of these trial numbers) another go; returns how many.

        The study is live again, but a paused one stays paused, and one that was cancelled stays so.
        """
        chosen = [tickets.c.ending.in_(endings)]
        if numbers:
            chosen.append(tickets.c.trial_number.in_(numbers))
        fresh = dict.fromkeys(["ending", "value", "outcome", "closed_at", "worker_id", "queued_at"])
        with self._db.transaction() as connection:
            state, spec = _lock(connection, study_id)
            if state in GIVEN_UP:
                return 0
            count = connection.execute(
                update(tickets)
                .where(tickets.c.study_id == study_id, tickets.c.state == TicketState.CLOSED, *chosen)
                .values(state=TicketState.WAITING, infrastructure_failures=0, errors=0, **fresh)
            ).rowcount
            if count:
                _revive_study(connection, study_id, spec)
                record(connection, "retry", study_id=study_id, trials=list(numbers) or "all that failed", tickets=count)
        return count

    def stop_trial(self, study_id: int, trial_number: int) -> bool:
        """Requests that the holder stops one trial; its next renewal returns the request. False if it does not run."""
        runs = and_(tickets.c.study_id == study_id, tickets.c.state == TicketState.RUNNING)
        statement = update(tickets).where(runs, tickets.c.trial_number == trial_number).values(cancel_requested=True)
        with self._db.transaction() as connection:
            is_asked = connection.execute(statement).rowcount == 1
            if is_asked:
                record(connection, "stop trial", study_id=study_id, trial=trial_number)
        return is_asked

    def delete(self, study_id: int) -> None:
        """Removes the study with its tickets and attempts. Optuna's study is not ours to remove."""
        with self._db.transaction() as connection:
            record(connection, "delete", study_id=study_id)
            connection.execute(delete(studies).where(studies.c.id == study_id))

    def counts(self, study_id: int) -> StudyCounts:
        """Its progress, read by one statement."""
        rows = self._db.rows(
            select(tickets.c.state, tickets.c.ending, func.count(), func.sum(tickets.c.attempt))
            .where(tickets.c.study_id == study_id)
            .group_by(tickets.c.state, tickets.c.ending)
        )
        by_state: Counter[TicketState] = Counter()
        by_ending: Counter[Ending] = Counter()
        for state, stored, count, _ in rows:
            by_state[TicketState(state)] += count
            if (ending := known_ending(stored)) is not None:
                by_ending[ending] += count
        return StudyCounts(by_state=by_state, by_ending=by_ending, attempts=sum(row[3] for row in rows))

    def best_value(self, study_id: int, *, maximize: bool) -> float | None:
        """The best value of a completed ticket; None before the first."""
        best = func.max(tickets.c.value) if maximize else func.min(tickets.c.value)
        completed = and_(tickets.c.study_id == study_id, tickets.c.ending == Ending.COMPLETED)
        ((value,),) = self._db.rows(select(best).where(completed))
        return None if value is None else float(value)

    def attempts(
        self,
        study_id: int,
        *,
        trial_number: int | None = None,
        ticket_id: int | None = None,
        endings: Collection[Ending] | None = None,
    ) -> list[AttemptRecord]:
        """The history of attempts, oldest first; of one trial or ticket, or that ended so, when that is given."""
        statement = (
            select(attempts, tickets.c.ordinal)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(tickets.c.study_id == study_id)
            .order_by(attempts.c.started_at)
        )
        if trial_number is not None:
            statement = statement.where(attempts.c.trial_number == trial_number)
        if ticket_id is not None:
            statement = statement.where(attempts.c.ticket_id == ticket_id)
        if endings is not None:
            statement = statement.where(attempts.c.ending.in_(endings))
        return [attempt_record(row._mapping) for row in self._db.rows(statement)]

    def clock(self) -> float:
        """The database's now: what the times of a StudyRecord are to be compared with."""
        ((now,),) = self._db.rows(select(db_now()))
        return float(now)

    def _analyze(self, added: int) -> None:
        """A table that has grown gets new statistics at once, and not in a minute: until then ticks read all of it.

        Best effort: the tickets are there already.
        """
        if added >= _MANY:
            with suppress(ServiceError):
                self._db.changed(text("ANALYZE hn_tickets"))

    def _change(self, study_id: int, action: str, before: tuple[StudyState, ...], after: StudyState) -> bool:
        statement = update(studies).where(studies.c.id == study_id, studies.c.state.in_(before)).values(state=after)
        with self._db.transaction() as connection:
            is_changed = connection.execute(statement).rowcount == 1
            if is_changed:
                record(connection, action, study_id=study_id)
        return is_changed


def request_cancel(connection: Connection, study_id: int) -> None:
    """What has not begun is cancelled at once; the holder of what runs learns it by its next renewal."""
    of_study = tickets.c.study_id == study_id
    runs = tickets.c.state == TicketState.RUNNING
    connection.execute(
        update(tickets)
        .where(of_study, or_(runs, tickets.c.state.in_([TicketState.WAITING, TicketState.QUEUED])))
        .values(
            state=case((runs, TicketState.RUNNING.value), else_=TicketState.CANCELLED.value),
            cancel_requested=runs,
        )
    )


_FAIL_ENQUEUED = text(
    """
    with failed as (
        update trials
        set state = 'FAIL', datetime_complete = hn_utc_now_1(),
            datetime_start = coalesce(datetime_start, hn_utc_now_1())
        where state = 'WAITING' and study_id = (
            select coalesce(s.optuna_study_id, (select study_id from studies where study_name = s.name))
            from hn_studies s where s.id = :study)
        returning trial_id)
    insert into trial_user_attributes (trial_id, key, value_json)
    select trial_id, 'highnoon:cause', '"cancelled"' from failed
    on conflict (trial_id, key) do update set value_json = excluded.value_json
    """
)


def record_of(row: RowMapping) -> StudyRecord:
    """A row of the table, as the value the rest of the system knows; columns of a newer version are ignored."""
    known = {field.name: row[field.name] for field in fields(StudyRecord)}
    # Of a study with broken data: what lists all studies must list it as well.
    spec = row["spec"] if isinstance(row["spec"], dict) else {}
    return StudyRecord(**{**known, "spec": spec, "state": StudyState(row["state"])})


_NEXT_VERSION = {"spec_version": studies.c.spec_version + 1}
"""Whatever was planned or sampled for the study as it was does not apply any more."""


def _lock(connection: Connection, study_id: int) -> tuple[StudyState, dict[str, Any]]:
    """The study's row is the lock: two that add tickets at the same time must both see what the first one added."""
    statement = select(studies.c.state, studies.c.spec).where(studies.c.id == study_id).with_for_update()
    row = connection.execute(statement).first()
    if row is None:
        raise UnknownStudy("the study was deleted")
    return StudyState(row.state), row.spec


def _count(connection: Connection, study_id: int) -> int:
    """Its tickets that were not dropped."""
    kept = and_(tickets.c.study_id == study_id, tickets.c.state != TicketState.CANCELLED)
    return int(connection.scalar(select(func.count()).select_from(tickets).where(kept)) or 0)


def _revive_study(connection: Connection, study_id: int, spec: Mapping[str, Any]) -> None:
    """No limit ends it until one is met again: what was over starts its clock with its next dispatch."""
    was_over = studies.c.state.in_([StudyState.FINISHED, StudyState.CANCELLED])
    is_paused = studies.c.state == StudyState.PAUSED
    changed = {
        "spec": dict(spec),
        "state": case((is_paused, StudyState.PAUSED.value), else_=StudyState.RUNNING.value),
        "stop_reason": None,
        "fault": None,
        "started_at": case((was_over, None), else_=studies.c.started_at),
        "ended_at": None,
    }
    connection.execute(update(studies).where(studies.c.id == study_id).values(**changed, **_NEXT_VERSION))


def _add_tickets(connection: Connection, study_id: int, count: int) -> None:
    """So many more tickets, of which those that a limit had dropped come first. Under the study's lock."""
    dropped = (
        select(tickets.c.id)
        .where(tickets.c.study_id == study_id, tickets.c.state == TicketState.CANCELLED)
        .order_by(tickets.c.ordinal)
        .limit(count)
    )
    revived = connection.execute(
        update(tickets)
        .where(tickets.c.id.in_(dropped))
        .values(state=TicketState.WAITING, cancel_requested=False, queued_at=None)
    ).rowcount
    last = select(func.coalesce(func.max(tickets.c.ordinal), -1)).where(tickets.c.study_id == study_id)
    further = select(literal(study_id), last.scalar_subquery() + func.generate_series(1, count - revived))
    connection.execute(insert(tickets).from_select(["study_id", "ordinal"], further))
