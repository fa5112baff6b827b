"""The tables of the ledger, their invariants as constraints, and the database's clock.

PostgreSQL only. Owns no statement of the protocol: those are in `functions.sql` and in `attempts`. Times are seconds
since the epoch on the *database's* clock, so that no worker's clock ever judges an expiry.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from highnoon.shared.domain.states import StrEnum, StudyState, TicketState, WorkerState

SCHEMA_VERSION = 7

metadata = MetaData()

LIVE_STUDIES = (StudyState.RUNNING, StudyState.PAUSED, StudyState.CANCELLING)
"""States of studies that are not over."""

# Not JSONB: that sorts keys, and people expect their parameters in the order in which they wrote them.
_Json = JSON(none_as_null=True)


def _one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    return CheckConstraint(_is_one_of(column, states), name=f"{column}_is_known")


def _is_one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


meta = Table(
    "hn_meta",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("value", String(200), nullable=False),
)

studies = Table(
    "hn_studies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("spec", _Json, nullable=False),
    # Grows with every change of the specification: a point that was sampled for an older one is not started.
    Column("spec_version", Integer, nullable=False, default=1, server_default="1"),
    # Optuna's study of the same name, in the same database; NULL only where it was gone before ledger version 4.
    Column("optuna_study_id", Integer),
    # Why the coordinator leaves this study alone for now: its stored data cannot be used.
    Column("fault", Text),
    Column("state", String(16), nullable=False, default=StudyState.RUNNING),
    # Why a limit ended it (n_trials, timeout, ...). Set before the last attempts are over: nothing new starts then.
    Column("stop_reason", String(40)),
    Column("queue", String(16), nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    _one_of("state", StudyState),
    Index("hn_studies_live", "id", postgresql_where=text(_is_one_of("state", LIVE_STUDIES))),
)

tickets = Table(
    "hn_tickets",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("study_id", ForeignKey("hn_studies.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("state", String(16), nullable=False, default=TicketState.WAITING),
    # The fence. Only ever grows.
    Column("attempt", Integer, nullable=False, default=0),
    # Attempts that the infrastructure ended, charged against max_attempts; and the objective, against retry_errors.
    Column("infrastructure_failures", Integer, nullable=False, default=0),
    Column("errors", Integer, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0.0),
    Column("queued_at", Double),
    Column("worker_id", String(32)),
    Column("lease_expires_at", Double),
    Column("cancel_requested", Boolean, nullable=False, default=False, server_default=false()),
    # Of the newest attempt: what the next attempt repeats.
    Column("params", _Json),
    Column("trial_id", Integer),
    Column("trial_number", Integer),
    Column("step", BigInteger),
    Column("rss_bytes", BigInteger),
    # The newest checkpoint in the store, whichever attempt has saved it: {"id", "attempt", "size_bytes", "sha256"}.
    Column("checkpoint", _Json),
    # Written once, when the ticket is closed.
    Column("ending", String(16)),
    Column("value", Double),
    Column("outcome", _Json),
    Column("closed_at", Double),
    UniqueConstraint("study_id", "ordinal", name="one_ticket_per_ordinal"),
    _one_of("state", TicketState),
    CheckConstraint("(state = 'running') = (lease_expires_at IS NOT NULL)", name="running_means_a_lease"),
    CheckConstraint("state <> 'closed' OR outcome IS NOT NULL", name="closed_means_an_outcome"),
    Index("hn_tickets_by_state", "study_id", "state"),
    # What a tick reads. None has lease_expires_at: each renewal would have to write it.
    Index("hn_tickets_waiting", "study_id", "ordinal", postgresql_where=text("state = 'waiting'")),
    Index("hn_tickets_queued", "study_id", postgresql_where=text("state = 'queued'")),
    Index("hn_tickets_running", "study_id", postgresql_where=text("state = 'running'")),
    Index("hn_tickets_closed", "study_id", "closed_at", postgresql_where=text("state = 'closed'")),
    Index("hn_tickets_best", "study_id", "value", postgresql_where=text("ending = 'completed'")),
    # What the coordinator reads to keep the last checkpoints of the best trials only: few of a study's tickets.
    Index(
        "hn_tickets_with_checkpoint",
        "study_id",
        postgresql_where=text("state = 'closed' and checkpoint is not null"),
    ),
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
    # {metric: [[step, value], ...]}, bounded; read for one trial at a time, never with a list of attempts.
    Column("metric_history", _Json),
    # Which code it ran: a digest of the objective's source tree, as its worker saw it.
    Column("code", String(64)),
    # What it ran in: the digest of a row of hn_environments.
    Column("environment", String(64)),
    # Made by the holder once per decision: a finish that is repeated with it finds its own first try.
    Column("finish_token", String(64)),
    # How another program had ended the Optuna trial, where that differs from this attempt's outcome.
    Column("foreign_ending", Text),
    Index("hn_attempts_of_worker", "worker_id", "ended_at"),
)

# Files in the store of artifacts and checkpoints, noted before they are written. One whose attempt is over and that
# neither a trial's attributes nor its ticket names counts for nothing: the coordinator removes it, and then its row.
files = Table(
    "hn_files",
    metadata,
    Column("id", String(36), primary_key=True),
    # No foreign keys: it outlives its study until the file is removed.
    Column("ticket_id", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("trial_id", Integer),
    Column("created_at", Double, nullable=False),
    Index("hn_files_of_ticket", "ticket_id"),
)

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
    # When a person took it back from quarantine: earlier failures count no longer.
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

environments = Table(
    "hn_environments",
    metadata,
    # Named by their content, as bundles are. No foreign key: a backup of a study may be restored without them.
    Column("digest", String(64), primary_key=True),
    Column("content", _Json, nullable=False),
)

# What is to be posted: one row for each study and kind of event until it is received. No foreign key: an insert would
# then wait for the transaction that has locked the study.
notifications = Table(
    "hn_notifications",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("study_id", BigInteger, nullable=False),
    Column("event", String(16), nullable=False),
    # The newest trial that it is about.
    Column("ticket_id", BigInteger),
    # How many events it stands for; `seq` grows with each, so that a sender knows what it has sent.
    Column("count", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("error", Text),
    UniqueConstraint("study_id", "event", name="one_notification_per_event"),
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

# Who changed what. Rows are only added: a trigger in functions.sql refuses anything else within their first year.
audit = Table(
    "hn_audit",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    # As the process that made the change names its user: anna@node-a, or a token of the dashboard.
    Column("actor", String(200), nullable=False),
    Column("via", String(40), nullable=False),
    # Whom PostgreSQL let in: no process can write another one here by mistake.
    Column("account", String(100), nullable=False, server_default=text("session_user")),
    Column("action", String(40), nullable=False),
    # No foreign key: it outlives the study.
    Column("study", String(100)),
    Column("details", _Json),
    Index("hn_audit_of_study", "study", "id"),
)


class db_now(FunctionElement[float]):
    """The database's wall clock: seconds since the epoch as a double, read when the statement runs."""

    type = Double()
    inherit_cache = True


@compiles(db_now)
def _standard_now(element: db_now, compiler: Any, **kw: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
