"""The tables of the ledger, their invariants as constraints, and the database's clock.

Owns no statement of the protocol. Times are seconds since the epoch on the *database's* clock, so that the
same arithmetic runs on PostgreSQL and SQLite and no worker's clock ever judges an expiry.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from highnoon.shared.domain.states import StrEnum, StudyState, TicketState, WorkerState

SCHEMA_VERSION = 3

metadata = MetaData()

# Not JSONB: that sorts keys, and people expect their parameters in the order in which they wrote them.
_Json = JSON(none_as_null=True)
_Id = BigInteger().with_variant(Integer(), "sqlite")


def _one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    values = ", ".join(f"'{state}'" for state in states)
    return CheckConstraint(f"{column} IN ({values})", name=f"{column}_is_known")


meta = Table(
    "hn_meta",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("value", String(200), nullable=False),
)

studies = Table(
    "hn_studies",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("spec", _Json, nullable=False),
    Column("state", String(16), nullable=False, default=StudyState.RUNNING),
    # Why a limit ended it (n_trials, timeout, ...). Set before the last attempts are over: nothing new starts then.
    Column("stop_reason", String(40)),
    Column("queue", String(16), nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    _one_of("state", StudyState),
)

tickets = Table(
    "hn_tickets",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("study_id", ForeignKey("hn_studies.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("state", String(16), nullable=False, default=TicketState.WAITING),
    # The fence. Only ever grows.
    Column("attempt", Integer, nullable=False, default=0),
    # Infrastructure's endings so far, charged against max_attempts; and the objective's, against retry_errors.
    Column("losses", Integer, nullable=False, default=0),
    Column("errors", Integer, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0.0),
    Column("queued_at", Double),
    Column("worker_id", String(32)),
    Column("lease_expires_at", Double),
    Column("cancel_requested", Boolean, nullable=False, default=False, server_default=false()),
    # Of the newest attempt that got as far as asking: what the next attempt repeats.
    Column("params", _Json),
    Column("trial_id", Integer),
    Column("trial_number", Integer),
    Column("step", Integer),
    Column("rss_bytes", BigInteger),
    # Written once, by settle.
    Column("ending", String(16)),
    Column("value", Double),
    Column("outcome", _Json),
    Column("settled_at", Double),
    Column("closed_at", Double),
    UniqueConstraint("study_id", "ordinal", name="one_ticket_per_ordinal"),
    _one_of("state", TicketState),
    CheckConstraint("(state = 'leased') = (lease_expires_at IS NOT NULL)", name="leased_means_a_lease"),
    CheckConstraint("state NOT IN ('settled', 'closed') OR outcome IS NOT NULL", name="settled_means_an_outcome"),
    Index("hn_tickets_by_state", "study_id", "state"),
)

attempts = Table(
    "hn_attempts",
    metadata,
    Column("ticket_id", ForeignKey("hn_tickets.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker_id", String(32), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("trial_number", Integer),
    Column("log_path", Text),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("ending", String(16)),
    Column("cause", String(40)),
    Column("message", Text),
    Column("exit_status", Integer),
    Column("signal", String(16)),
    Column("peak_rss_bytes", BigInteger),
    Column("log_tail", Text),
    # {"peak_bytes", "limit_bytes", "samples": [[seconds since its start, bytes], ...]}, the newest samples last.
    Column("memory", _Json),
    # Which code it ran: a digest of the objective's source tree, as its worker saw it.
    Column("code", String(64)),
)

attempts_of_worker = Index("hn_attempts_of_worker", attempts.c.worker_id, attempts.c.ended_at)

workers = Table(
    "hn_workers",
    metadata,
    # Random for every boot, never a host name: a restarted node must not pass for its predecessor.
    Column("id", String(32), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("queues", _Json, nullable=False),
    Column("state", String(16), nullable=False, default=WorkerState.ACTIVE),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    # What the node has, as its agent last saw it: memory, cores, GPUs, version.
    Column("facts", _Json),
    # Why a person or the coordinator put it into its state.
    Column("state_reason", Text),
    # When somebody took it back from quarantine: what it did before is forgiven.
    Column("reinstated_at", Double),
    _one_of("state", WorkerState),
)

bundles = Table(
    "hn_bundles",
    metadata,
    # Named by their content: a bundle never changes.
    Column("digest", String(64), primary_key=True),
    Column("archive", LargeBinary, nullable=False),
    Column("signature", String(128), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # When it was last handed in.
    Column("created_at", Double, nullable=False),
)

leader = Table(
    "hn_leader",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(32), nullable=False),
    Column("term", Integer, nullable=False),
    Column("expires_at", Double, nullable=False),
    CheckConstraint("id = 1", name="one_leader_row"),
)


class db_now(FunctionElement[float]):
    """The database's wall clock: seconds since the epoch as a double, read when the statement runs."""

    type = Double()
    inherit_cache = True


@compiles(db_now)
def _standard_now(element: db_now, compiler: Any, **kw: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"
