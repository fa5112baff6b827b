"""The outbox of notifications: triggers in functions.sql write a row in the transaction of the event; senders claim it.

There is one row for each study and kind of event: several events before it is sent become one, with their number.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import RowMapping

from highnoon.shared.store.database import Database

_CLAIM = text(
    "with due as (select n.id from hn_notifications n where n.next_at <= hn_now_1()"
    " and n.study_id <> all (:but) order by n.next_at limit 1 for update skip locked)"
    " update hn_notifications n set next_at = hn_now_1() + :again_s, tries = n.tries + 1 from due where n.id = due.id"
    " returning n.id, n.study_id, n.event, n.ticket_id, n.count, n.seq, n.tries, n.at"
)
_FACTS = text(
    "select s.name, s.state, s.stop_reason, s.spec,"
    " (select json_object_agg(coalesce(ending, state), counted.n) from"
    "  (select ending, state, count(*) as n from hn_tickets where study_id = s.id group by 1, 2) counted) as trials,"
    " (select json_build_object('number', trial_number, 'ending', ending, 'value', value, 'params', params,"
    "  'message', left(outcome ->> 'message', 500)) from hn_tickets where id = :ticket) as trial,"
    " (select json_build_object('number', trial_number, 'value', value, 'params', params) from hn_tickets"
    "  where study_id = s.id and ending = 'completed' and value is not null"
    "  order by case when s.spec ->> 'direction' = 'maximize' then -value else value end limit 1) as best"
    " from hn_studies s where s.id = :study"
)
_SENT = text("delete from hn_notifications where id = :id and seq = :seq returning id")
_SENT_IN_PART = text(
    "update hn_notifications set next_at = hn_now_1(), tries = 0, count = count - :count, error = null"
    " where id = :id and seq <> :seq returning id"
)
_AGAIN = text("update hn_notifications set next_at = hn_now_1() + :delay_s, error = :error where id = :id returning id")
_DROP = text("delete from hn_notifications where id = :id and at < hn_now_1() - :older_than_s returning id")
_DROP_OF_DELETED = text("delete from hn_notifications where id = :id returning id")
_TROUBLE = text(
    "select event, error from hn_notifications n join hn_studies s on s.id = n.study_id"
    " where s.name = :study and error is not null order by event"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One to send. `body` is JSON for the receiver; `seq` changes when more has happened meanwhile."""

    id: int
    study_id: int
    seq: int
    tries: int
    url: str
    body: dict[str, Any]


class Outbox:
    """Raises ServiceUnavailable. Two senders at once get different rows."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def claim(self, *, again_s: float, but: Collection[int] = ()) -> Notification | None:
        """One that is due, of none of these studies, or None. When its sender dies, it is due again after `again_s`."""
        # Without a transaction around both: a sender that freezes must hold no lock that the end of a trial waits for.
        while (row := self._db.row(_CLAIM, again_s=again_s, but=[*but])) is not None:
            facts = self._db.row(_FACTS, study=row["study_id"], ticket=row["ticket_id"])
            if facts is not None:
                return _notification(row, facts)
            self._db.call(_DROP_OF_DELETED, id=row["id"])
        return None

    def sent(self, notification: Notification) -> None:
        """It is received: removed, unless more has happened since it was claimed; that is due at once."""
        claimed = {"id": notification.id, "seq": notification.seq}
        # Two statements: the event of an end that the first one waits for is not in its snapshot, but in the second's.
        if self._db.call(_SENT, **claimed) is None:
            self._db.call(_SENT_IN_PART, **claimed, count=notification.body["count"])

    def postpone(self, notification: Notification, error: str, *, delay_s: float) -> None:
        """It was not received: due again later."""
        self._db.call(_AGAIN, id=notification.id, error=error[:500], delay_s=delay_s)

    def drop(self, notification: Notification, *, older_than_s: float) -> bool:
        """Given up, unless the newest event in it is younger; whether it was."""
        return self._db.call(_DROP, id=notification.id, older_than_s=older_than_s) is not None

    def trouble(self, study: str) -> list[str]:
        """What could not be sent yet and why, for people."""
        with self._db.transaction() as connection:
            return [f"{row.event}: {row.error}" for row in connection.execute(_TROUBLE, {"study": study})]


def _notification(row: RowMapping, facts: RowMapping) -> Notification:
    body = {
        "event": row["event"],
        "study": facts["name"],
        "at": row["at"],
        "count": row["count"],
        **{key: facts[key] for key in ("state", "stop_reason", "trials", "best", "trial")},
    }
    url = (facts["spec"].get("notify") or {}).get("url", "")
    return Notification(id=row["id"], study_id=row["study_id"], seq=row["seq"], tries=row["tries"], url=url, body=body)
