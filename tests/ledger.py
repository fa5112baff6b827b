"""A ledger for tests: all roles on one database, with short ways to start and end attempts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial
from sqlalchemy import event, select, text, update

from highnoon.shared.domain.lease import Candidate, Disposition, Holder, Lease, StartRefusal
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.domain.trial import MemoryTrace, Outcome, Params
from highnoon.shared.store.access import Access
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.control import Control
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.optuna_trials import NewTrial
from highnoon.shared.store.schema import db_now, tickets
from highnoon.shared.store.snapshot_queries import SnapshotQueries
from highnoon.shared.store.study_records import StudyRecord

SPEC = {"max_attempts": 3, "retry_errors": 0, "direction": "minimize"}
ANNA = Holder(worker_id="anna", host="node-a", pid=1)
BERT = Holder(worker_id="bert", host="node-b", pid=2)
USED = MemoryTrace(peak_bytes=300, limit_bytes=400, samples=((0.5, 200), (1.0, 300)))
DONE = Outcome(ending=Ending.COMPLETED, value=0.25, memory=USED)
FAILED = Outcome(ending=Ending.FAILED, cause="exception")
RELEASED = Outcome(ending=Ending.RELEASED, cause="drain")
KILLED = Outcome(ending=Ending.KILLED, cause="signal")


_OWN_CLOCK = """
create schema clock;
create table clock.ahead (seconds double precision not null);
insert into clock.ahead values (0);
create function clock.clock_timestamp() returns timestamptz language sql volatile as
    'select pg_catalog.clock_timestamp() + (select seconds from clock.ahead) * interval ''1 second''';
do $$ begin
    execute format('alter database %%I set search_path = clock, pg_catalog, public', current_database());
end $$;
"""
"""PostgreSQL finds functions by the order of schemas, also its own."""


_CLOSED_TICKETS = text(
    """
    insert into hn_tickets (study_id, ordinal, state, attempt, infrastructure_failures, errors, not_before, ending,
                            value, outcome, trial_number, closed_at, checkpoint)
    select :study, 10000 + n, 'closed', 1, 0, 0, 0, 'completed', random(), json_build_object('ending', 'completed'),
           n, extract(epoch from now()) + n / 1000.0,
           case when n <= :checkpoints then json_build_object('id', 'c' || n) end
    from generate_series(1, :count) as n
    """
)


_ENDED_ATTEMPTS = text(
    """
    insert into hn_attempts (ticket_id, attempt, worker_id, host, pid, started_at, ended_at, ending)
    select id, 1, (cast(:workers as text[]))[1 + id % cardinality(cast(:workers as text[]))], 'host', 1,
           closed_at - 1, closed_at, 'completed'
    from hn_tickets where study_id = :study and state = 'closed'
    """
)


def point(x: float = 0.5, **more: Any) -> NewTrial:
    """A trial with one parameter, as no sampler chose it."""
    params: Params = {"x": x}
    return NewTrial(params=params, distributions={"x": FloatDistribution(0.0, 1e9)}, **more)


@contextmanager
def rows_read(database: Database, *tables: str) -> Iterator[list[float]]:
    """Of each statement within: how many rows of these tables it reads, those included that it drops."""
    statements: list[tuple[str, Any]] = []
    read: list[float] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    def rows_of(plan: dict[str, Any]) -> float:
        is_counted = plan.get("Relation Name") in tables
        own = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) if is_counted else 0
        return float(own + sum(map(rows_of, plan.get("Plans", ()))))

    event.listen(database.engine, "before_cursor_execute", note)
    yield read
    event.remove(database.engine, "before_cursor_execute", note)
    with database.transaction() as connection:
        for statement, parameters in statements:
            (plan,) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).one()
            read.append(rows_of(plan[0]["Plan"]))


def add_closed_tickets(
    database: Database, study_id: int, count: int, *, with_checkpoint: int = 0, of_workers: Sequence[str] = ()
) -> None:
    """So many closed tickets, the first few of which have a checkpoint; the statistics of the table are up to date.

    With `of_workers` each has an attempt, of these nodes in turns.
    """
    with database.transaction() as connection:
        connection.execute(_CLOSED_TICKETS, {"study": study_id, "count": count, "checkpoints": with_checkpoint})
        if of_workers:
            connection.execute(_ENDED_ATTEMPTS, {"study": study_id, "workers": [*of_workers]})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE hn_tickets, hn_attempts"))
        connection.execute(text("ANALYZE hn_studies"))


class Ledger:
    """On a database whose tables it makes, unless they are there."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.access = Access(url)
        if create:
            self.access.create()
        self.database, self.studies = self.access.database, self.access.studies
        self.attempts, self.nodes = Attempts(self.database), Nodes(self.database)
        self.control, self.snapshot = Control(self.database), SnapshotQueries(self.database)

    def close(self) -> None:
        self.access.close()

    def study(self, n_trials: int = 1, name: str = "digits", queue: str = "cpu", **spec: object) -> StudyRecord:
        optuna_id = self.access.store.create_study(name, "minimize")
        return self.studies.create(name, {**SPEC, **spec}, queue=queue, n_trials=n_trials, optuna_study_id=optuna_id)

    def tickets(self, study: StudyRecord) -> list[int]:
        of_study = select(tickets.c.id).where(tickets.c.study_id == study.id)
        with self.database.transaction() as connection:
            return list(connection.scalars(of_study.order_by(tickets.c.ordinal)))

    def state(self, ticket: int) -> str:
        with self.database.transaction() as connection:
            return str(connection.scalar(select(tickets.c.state).where(tickets.c.id == ticket)))

    def expire(self, lease: Lease, *, in_s: float = -1.0) -> None:
        """As if the holder had been silent for a whole lease, or were until then in so many seconds."""
        self._change(lease.ticket_id, lease_expires_at=db_now() + in_s)

    def is_expired(self, lease: Lease) -> bool:
        with self.database.transaction() as connection:
            late = select(tickets.c.lease_expires_at < db_now()).where(tickets.c.id == lease.ticket_id)
            return bool(connection.scalar(late))

    def own_clock(self) -> None:
        """From now on the clock of this database is one that `shift_clock` changes."""
        with self.database.transaction() as connection:
            connection.exec_driver_sql(_OWN_CLOCK)
        self.database.engine.dispose()

    def shift_clock(self, seconds: float) -> None:
        with self.database.transaction() as connection:
            connection.execute(text("update clock.ahead set seconds = seconds + :more"), {"more": seconds})

    def end_all_sessions(self) -> None:
        with self.database.transaction() as connection:
            connection.exec_driver_sql(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )

    def skip_delay(self, ticket: int) -> None:
        """As if the delay after a failure were over."""
        self._change(ticket, not_before=db_now() - 1.0)

    def look(self, ticket: int) -> Candidate:
        candidate = self.attempts.look(ticket)
        assert candidate is not None
        return candidate

    def try_start(self, ticket: int, holder: Holder = ANNA, new: NewTrial | None = None) -> Lease | StartRefusal | None:
        """As a supervisor with this message; None when there is nothing to look at."""
        candidate = self.attempts.look(ticket)
        return candidate and self.start_at(candidate, holder, new)

    def start_at(
        self, candidate: Candidate, holder: Holder = ANNA, new: NewTrial | None = None, environment: str | None = None
    ) -> Lease | StartRefusal:
        new = new or point()
        return self.attempts.start(candidate, new, holder, ttl_s=30.0, log_path="log", environment=environment)

    def start(self, ticket: int, holder: Holder = ANNA, new: NewTrial | None = None) -> Lease:
        lease = self.try_start(ticket, holder, new)
        assert isinstance(lease, Lease), lease
        return lease

    def finish(
        self, lease: Lease, outcome: Outcome = DONE, disposition: Disposition = Disposition.CLOSE, **more: Any
    ) -> str | None:
        token = more.pop("token", uuid.uuid4().hex)
        return self.attempts.finish(lease, outcome, disposition=disposition, token=token, **more)

    def run(self, ticket: int, outcome: Outcome = DONE, holder: Holder = ANNA) -> Lease:
        """A whole attempt."""
        lease = self.start(ticket, holder)
        self.finish(lease, outcome)
        return lease

    def cancel(self, study: StudyRecord) -> None:
        """To its end; no attempt of it may run."""
        self.studies.cancel(study.id)
        before, after = StudyState.CANCELLING, StudyState.CANCELLED
        assert self.control.finish(study.id, before=before, state=after, reason="cancelled")

    def optuna(self, name: str = "digits") -> optuna.Study:
        """As an ordinary script has it."""
        return optuna.load_study(study_name=name, storage=self.database.url)

    def trial(self, lease: Lease) -> FrozenTrial:
        """Optuna's trial of an attempt, read by Optuna alone."""
        return next(trial for trial in self.optuna().get_trials() if trial.number == lease.trial_number)

    def _change(self, ticket: int, **values: Any) -> None:
        with self.database.transaction() as connection:
            connection.execute(update(tickets).where(tickets.c.id == ticket).values(**values))
