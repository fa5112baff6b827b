"""Parts of a transaction that changes a study: its lock, its tickets, its life. Each is called under that lock.

The connection is the caller's (`Studies`), which commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, case, func, insert, literal, or_, select, text, update

from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.states import StudyState, TicketState
from highnoon.shared.store.schema import studies, tickets

NEXT_VERSION = {"spec_version": studies.c.spec_version + 1}
"""Whatever was planned or sampled for the study as it was does not apply any more."""

_OPTUNAS = "(select optuna_study_id from hn_studies where id = :study)"
"""The id of Optuna's study."""

_FAIL_ENQUEUED = text(
    f"""
    with failed as (
        update trials
        set state = 'FAIL', datetime_complete = hn_utc_now_1(),
            datetime_start = coalesce(datetime_start, hn_utc_now_1())
        where state = 'WAITING' and study_id = {_OPTUNAS}
        returning trial_id)
    insert into trial_user_attributes (trial_id, key, value_json)
    select trial_id, 'highnoon:cause', '"cancelled"' from failed
    on conflict (trial_id, key) do update set value_json = excluded.value_json
    """  # noqa: S608 - our own text
)

_OF_TRIALS = ("params", "values", "intermediate_values", "user_attributes", "system_attributes", "heartbeats")
_OF_STUDY = ("trials", "study_directions", "study_user_attributes", "study_system_attributes", "studies")
_ITS_TRIALS = f"(select trial_id from trials where study_id = {_OPTUNAS})"  # noqa: S608 - our own text
_DELETE = (
    f"select study_id from studies where study_id = {_OPTUNAS} for update",  # noqa: S608
    # A program that adds a report or an attribute waits for the lock of its trial.
    f"select count(*) from (select from trials where study_id = {_OPTUNAS} for update) as locked",  # noqa: S608
    *(f"delete from trial_{table} where trial_id in {_ITS_TRIALS}" for table in _OF_TRIALS),  # noqa: S608
    *(f"delete from {table} where study_id = {_OPTUNAS}" for table in _OF_STUDY),  # noqa: S608
    "delete from hn_studies where id = :study",
)


def lock_study(connection: Connection, study_id: int) -> tuple[StudyState, dict[str, Any]]:
    """The study's row is the lock: two that add tickets at the same time must both see what the first one added."""
    statement = select(studies.c.state, studies.c.spec).where(studies.c.id == study_id).with_for_update()
    row = connection.execute(statement).first()
    if row is None:
        raise UnknownStudy("the study was deleted")
    return StudyState(row.state), row.spec


def count_tickets(connection: Connection, study_id: int) -> int:
    """Its tickets that were not dropped."""
    kept = and_(tickets.c.study_id == study_id, tickets.c.state != TicketState.CANCELLED)
    return int(connection.scalar(select(func.count()).select_from(tickets).where(kept)) or 0)


def add_tickets(connection: Connection, study_id: int, count: int, *, untried: bool = False) -> None:
    """So many more tickets, of which those that a limit had dropped come first. Under the study's lock.

    With `untried` not those that have been tried before: they would repeat their point, and take no enqueued one.
    """
    dropped = select(tickets.c.id).where(tickets.c.study_id == study_id, tickets.c.state == TicketState.CANCELLED)
    if untried:
        dropped = dropped.where(tickets.c.trial_number.is_(None))
    revived = connection.execute(
        update(tickets)
        .where(tickets.c.id.in_(dropped.order_by(tickets.c.ordinal).limit(count)))
        .values(state=TicketState.WAITING, cancel_requested=False, queued_at=None)
    ).rowcount
    last = select(func.coalesce(func.max(tickets.c.ordinal), -1)).where(tickets.c.study_id == study_id)
    further = select(literal(study_id), last.scalar_subquery() + func.generate_series(1, count - revived))
    connection.execute(insert(tickets).from_select(["study_id", "ordinal"], further))


def revive_study(connection: Connection, study_id: int, spec: Mapping[str, Any]) -> None:
    """No limit ends it until one is met again: what a limit has ended starts its clock with its next dispatch."""
    was_over = or_(studies.c.state == StudyState.FINISHED, studies.c.stop_reason.is_not(None))
    is_paused = studies.c.state == StudyState.PAUSED
    changed = {
        "spec": dict(spec),
        "state": case((is_paused, StudyState.PAUSED.value), else_=StudyState.RUNNING.value),
        "stop_reason": None,
        "fault": None,
        "started_at": case((was_over, None), else_=studies.c.started_at),
        "ended_at": None,
    }
    connection.execute(update(studies).where(studies.c.id == study_id).values(**changed, **NEXT_VERSION))


def move_study(connection: Connection, study_id: int, queue: str) -> None:
    """Its trials go to this queue from now on. What was sent to another one waits again, to be sent to this one."""
    elsewhere = studies.c.id == study_id, studies.c.queue != queue
    if connection.execute(update(studies).where(*elsewhere).values(queue=queue)).rowcount:
        # A node may still take a message from the old queue: the other one finds the ticket running then.
        queued = tickets.c.study_id == study_id, tickets.c.state == TicketState.QUEUED
        connection.execute(update(tickets).where(*queued).values(state=TicketState.WAITING, queued_at=None))


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


def fail_enqueued(connection: Connection, study_id: int) -> None:
    """Ends Optuna's enqueued trials of the study, as cancelled: no ticket is left that would take them."""
    connection.execute(_FAIL_ENQUEUED, {"study": study_id})


def delete_study(connection: Connection, study_id: int) -> None:
    """With its tickets and attempts, and Optuna's study with its trials, which Optuna itself deletes row by row."""
    for statement in _DELETE:
        connection.execute(text(statement), {"study": study_id})
