"""What people do to studies (submit, pause, resume, cancel, retry) and what they may read of them.

A study's specification is stored as the JSON of its StudySpec; this file does not interpret it beyond what the
caller passes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import and_, func, insert, select, text, update

from highnoon.shared.domain.errors import ServiceError, StudyConflict, UnknownStudy
from highnoon.shared.domain.scalars import is_storable
from highnoon.shared.domain.states import GIVEN_UP, Ending, StudyState, TicketState, known_ending
from highnoon.shared.store.attempt_records import ATTEMPT_COLUMNS, AttemptRecord, attempt_record
from highnoon.shared.store.audit import record
from highnoon.shared.store.connections import allow_longer
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import LIVE_STUDIES, attempts, db_now, studies, tickets
from highnoon.shared.store.study_changes import (
    NEXT_VERSION,
    add_tickets,
    count_tickets,
    delete_study,
    fail_enqueued,
    lock_study,
    move_study,
    request_cancel,
    revive_study,
)
from highnoon.shared.store.study_records import StudyCounts, StudyRecord, record_of

_MANY = 1000
"""Tickets that change what the planner of PostgreSQL should know."""

_DELETE_S = 1800.0
"""For a study of a million trials."""


class Studies:
    """Statements of people. Look-ups by name raise UnknownStudy; all raise ServiceUnavailable when unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, name: str) -> StudyRecord | None:
        """The study of that name, or None."""
        if not is_storable(name):
            return None
        found = self._db.rows(select(studies).where(studies.c.name == name))
        return record_of(found[0]._mapping) if found else None

    def get(self, name: str) -> StudyRecord:
        """The study of that name. Raises UnknownStudy with the nearest one."""
        found = self.find(name)
        if found is None:
            raise UnknownStudy.of(name, [known.name for known in self.all()])
        return found

    def all(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        return [record_of(row._mapping) for row in self._db.rows(select(studies).order_by(studies.c.id))]

    def create(
        self, name: str, spec: Mapping[str, Any], *, queue: str, n_trials: int, optuna_study_id: int
    ) -> StudyRecord:
        """A running study with `n_trials` waiting tickets, in one transaction.

        Raises IntegrityError when the name is taken (two submitted at once): look it up and join it.
        """
        with self._db.transaction() as connection:
            new = {"name": name, "spec": dict(spec), "queue": queue, "optuna_study_id": optuna_study_id}
            row = connection.execute(insert(studies).values(**new, submitted_at=db_now()).returning(studies))
            created = record_of(row.mappings().one())
            add_tickets(connection, created.id, n_trials)
            record(connection, "create", study=name, trials=n_trials, objective=spec.get("objective"))
        self._analyze(n_trials)
        return created

    def extend(self, study_id: int, spec: Mapping[str, Any], *, n_trials: int, queue: str | None = None) -> int:
        """Makes it a live study of at least `n_trials` tickets; returns how many it gained. A paused one stays paused.

        Tickets that a limit had dropped come first: an ordinal may be a grid's point, and no other has it.
        With `queue` its trials go there from now on.
        Raises StudyConflict for a study that was cancelled: that is final.
        """
        with self._db.transaction() as connection:
            state, _ = lock_study(connection, study_id)
            if state in GIVEN_UP:
                raise StudyConflict("the study was cancelled meanwhile: give the new one another name")
            missing = max(0, n_trials - count_tickets(connection, study_id))
            add_tickets(connection, study_id, missing)
            revive_study(connection, study_id, spec)
            if queue is not None:
                move_study(connection, study_id, queue)
            record(connection, "extend", study_id=study_id, trials=n_trials, added=missing)
        self._analyze(missing)
        return missing

    def add_trials(
        self,
        study_id: int,
        count: int,
        *,
        at_most: int,
        untried: bool = False,
        action: str = "add trials",
        details: Mapping[str, Any] | None = None,
    ) -> int:
        """`count` more trials, but not more than `at_most` in all; returns how many it gained.

        Counted under the study's lock: two that add at the same time both add. 0, too, for a study that was cancelled.
        With `untried` they take enqueued points: of tickets that a limit had dropped, none that was tried comes back,
        and what was enqueued for a study that was cancelled meanwhile is failed.
        The audit has it as `action` with `details`, by default how many were added.
        """
        with self._db.transaction() as connection:
            state, spec = lock_study(connection, study_id)
            have = count_tickets(connection, study_id)
            added = 0 if state in GIVEN_UP else max(0, min(count, at_most - have))
            if untried and state in GIVEN_UP:
                fail_enqueued(connection, study_id)
            if added:
                add_tickets(connection, study_id, added, untried=untried)
                revive_study(connection, study_id, {**spec, "n_trials": have + added})
                record(connection, action, study_id=study_id, **({"added": added} if details is None else details))
        self._analyze(added)
        return added

    def set_share(self, study_id: int, changes: Mapping[str, Any]) -> bool:
        """Changes `priority` and `max_running` of its specification. False when it is over.

        The version stays: no trial that was sampled depends on them.
        """
        with self._db.transaction() as connection:
            state, spec = lock_study(connection, study_id)
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
            state, _ = lock_study(connection, study_id)
            if state not in (StudyState.RUNNING, StudyState.PAUSED):
                return False
            changed = {"state": StudyState.CANCELLING, "stop_reason": "cancelled"}
            connection.execute(update(studies).where(studies.c.id == study_id).values(**changed, **NEXT_VERSION))
            request_cancel(connection, study_id)
            fail_enqueued(connection, study_id)
            record(connection, "cancel", study_id=study_id)
        return True

    def retry(self, study_id: int, *, endings: Collection[Ending], numbers: tuple[int, ...] = ()) -> int:
        """Gives closed tickets of these endings (or of these trial numbers) another go; returns how many.

        The study is live again, but a paused one stays paused, and one that was cancelled stays so. Raises
        StudyConflict for a number of none of these, and changes nothing.
        """
        chosen = [tickets.c.ending.in_(endings)]
        if numbers:
            chosen.append(tickets.c.trial_number.in_(numbers))
        fresh = dict.fromkeys(["ending", "value", "outcome", "closed_at", "worker_id", "queued_at"])
        with self._db.transaction() as connection:
            state, spec = lock_study(connection, study_id)
            if state in GIVEN_UP:
                return 0
            tried = connection.scalars(
                update(tickets)
                .where(tickets.c.study_id == study_id, tickets.c.state == TicketState.CLOSED, *chosen)
                .values(state=TicketState.WAITING, infrastructure_failures=0, errors=0, **fresh)
                .returning(tickets.c.trial_number)
            ).all()
            if others := sorted({*numbers}.difference(tried)):
                listed = ", ".join(map(str, others))
                raise StudyConflict(f"not among the trials that failed and may be tried again: {listed}")
            count = len(tried)
            if count:
                revive_study(connection, study_id, spec)
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

    def delete(self, study_id: int) -> bool:
        """Removes a study that is over, also in Optuna, with all of it; False where it is not. Raises UnknownStudy."""
        with self._db.transaction() as connection:
            allow_longer(connection, _DELETE_S)
            # Another person may have revived it since it was read.
            state, _ = lock_study(connection, study_id)
            if state in LIVE_STUDIES:
                return False
            record(connection, "delete", study_id=study_id)
            delete_study(connection, study_id)
        return True

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

    def count_first(self, study_id: int, count: int) -> int:
        """How many of its first `count` tickets there are, without those that were dropped."""
        of_study = tickets.c.study_id == study_id, tickets.c.ordinal < count, tickets.c.state != TicketState.CANCELLED
        ((found,),) = self._db.rows(select(func.count()).select_from(tickets).where(*of_study))
        return int(found)

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
            select(*ATTEMPT_COLUMNS)
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
