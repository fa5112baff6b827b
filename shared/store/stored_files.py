"""Files in the store that count for nothing: which there are, and that one of them is gone.

A file is noted before it is written (`Attempts.note_file`). It counts while a trial's attributes name it as an
artifact, or a ticket names it as its checkpoint: its own, or the one that a longer training begins with. Everything
else of attempts that are over is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, text

from highnoon.shared.domain.artifact import Artifact, Checkpoint
from highnoon.shared.domain.extension import KEPT_CHECKPOINTS
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import files

_AT_ONCE = 1000

_USELESS = text(
    f"""
    with found as materialized (
        select f.id, f.created_at from hn_files f
        left join hn_tickets t on t.id = f.ticket_id
        left join hn_attempts a on a.ticket_id = f.ticket_id and a.attempt = f.attempt
        where (a.ticket_id is null or a.ended_at is not null)
            and coalesce(a.ended_at, f.created_at) < hn_now_1() - :grace
            and not exists (select 1 from trial_system_attributes s
                            where s.trial_id = f.trial_id and s.key = 'artifacts:' || f.id)
            and (t.id is null or t.state = 'cancelled' or t.checkpoint ->> 'id' is distinct from f.id)
            and f.id <> all (:but)
    )
    select id from found
    -- A study that was restored from a backup names the files of the one that it is a copy of.
    where not exists (select 1 from trial_system_attributes s where s.key = 'artifacts:' || found.id)
        and not exists (select 1 from hn_tickets other where other.checkpoint ->> 'id' = found.id
                        and other.state in ('waiting', 'queued', 'running'))
    order by created_at limit {_AT_ONCE}
    """  # noqa: S608 - our own number
)

_NAMED_ELSEWHERE = text(
    """
    select distinct a.key from trial_system_attributes a join trials t using (trial_id) join studies s using (study_id)
    where a.key = any (:keys) and s.study_name <> :study
    """
)

_KEEPING_BEST = text(
    """
    select s.name, concat_ws(' ', s.spec ->> 'keep_best', newest.closed_at, s.ended_at) as change_token
    from hn_studies s cross join lateral (
        select t.closed_at from hn_tickets t
        where t.study_id = s.id and t.state = 'closed' order by t.closed_at desc limit 1
    ) newest
    where s.spec ->> 'keep_best' is not null
    """
)
"""The newest closed ticket by its index. A ticket that appears behind a newer one does not change the token."""

_KEEPING_CHECKPOINTS = text(
    f"""
    select s.id, s.name,
           least(coalesce((s.spec ->> 'keep_checkpoints')::numeric, {KEPT_CHECKPOINTS}), 2147483647)::integer as most,
           array_agg(t.trial_number order by t.trial_number) as numbers
    from hn_studies s join hn_tickets t on t.study_id = s.id
    where t.state = 'closed' and t.checkpoint is not null group by s.id
    """  # noqa: S608 - our own number
)

_DROP_CHECKPOINTS = text(
    """
    update hn_tickets t set checkpoint = null
    where t.study_id = :study and t.state = 'closed' and t.trial_number = any(:numbers)
        and not exists (
            select 1 from trials w join trial_user_attributes a on a.trial_id = w.trial_id
            where a.key = 'highnoon:extends' and w.study_id = (select optuna_study_id from hn_studies where id = :study)
                and w.state = 'WAITING' and a.value_json = t.trial_number::text)
    """
)

_EXTENDABLE = text(
    """
    select t.trial_number, t.checkpoint from hn_tickets t
    where t.study_id = :study and t.state = 'closed' and t.checkpoint is not null
        and exists (select 1 from hn_files f where f.id = t.checkpoint ->> 'id')
    order by t.trial_number
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCheckpoints:
    """A study's trials that are over and whose last checkpoint is in the store; `most` of them may keep it."""

    study_id: int
    study: str
    most: int
    numbers: tuple[int, ...]


class StoredFiles:
    """The statements. For the coordinator, whose account may delete rows. Raises ServiceUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def useless(self, *, grace_s: float, but: Collection[str] = ()) -> list[str]:
        """Ids of files, but these, whose attempt ended more than `grace_s` seconds ago and that count for nothing."""
        with self._db.transaction() as connection:
            return list(connection.scalars(_USELESS, {"grace": grace_s, "but": [*but]}))

    def named_elsewhere(self, study: str, artifacts: Iterable[Artifact]) -> set[str]:
        """Ids of those that trials of other studies name as well: copies of this study, restored from backups."""
        by_key = {artifact.attr[0]: artifact.id for artifact in artifacts}
        with self._db.transaction() as connection:
            keys = connection.scalars(_NAMED_ELSEWHERE, {"keys": [*by_key], "study": study})
            return {by_key[key] for key in keys}

    def keeping_best(self) -> dict[str, str]:
        """Studies that keep the artifacts of their best trials only, each with a token that changes with its trials."""
        return {row.name: row.change_token for row in self._db.rows(_KEEPING_BEST)}

    def keeping_checkpoints(self) -> list[KeptCheckpoints]:
        """Of each study that has some."""
        rows = self._db.rows(_KEEPING_CHECKPOINTS)
        return [
            KeptCheckpoints(study_id=row.id, study=row.name, most=row.most, numbers=tuple(row.numbers)) for row in rows
        ]

    def drop_checkpoints(self, study_id: int, numbers: Collection[int]) -> None:
        """They name theirs no more, so that it is removed; one that a longer training waits for stays."""
        with self._db.transaction() as connection:
            connection.execute(_DROP_CHECKPOINTS, {"study": study_id, "numbers": list(numbers)})

    def extendable(self, study_id: int) -> dict[int, Checkpoint]:
        """The last checkpoint of each trial of the study that is over, by its number, where it is in the store."""
        rows = self._db.rows(_EXTENDABLE.bindparams(study=study_id))
        return {row.trial_number: Checkpoint(**row.checkpoint) for row in rows}

    def forget(self, file_ids: Sequence[str]) -> None:
        """They are removed from the store."""
        self._db.changed(delete(files).where(files.c.id.in_(file_ids)))
