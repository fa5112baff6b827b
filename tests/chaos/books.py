"""What must hold after a run, from SQL and /proc alone: nothing of the product's own reading is trusted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from datetime import timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2.extras

from tests.chaos.clients import connected
from tests.chaos.objective import value_of
from tests.chaos.world import TEMPORARY, World

_CLOSED = (
    "select k.id, k.attempt, k.ending, k.value, k.trial_id, k.closed_at, a.ended_at, a.ending as attempt_ending, "
    "t.state::text as trial_state, t.datetime_complete, "
    "(select array_agg(v.value) from trial_values v where v.trial_id = k.trial_id) as trial_values, "
    "(select count(*) from trial_intermediate_values v where v.trial_id = k.trial_id) as reports "
    "from hn_tickets k join hn_studies s on s.id = k.study_id and s.name <> 'poisoned' "
    "left join hn_attempts a on a.ticket_id = k.id and a.attempt = k.attempt "
    "left join trials t on t.trial_id = k.trial_id where k.state = 'closed'"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    ticket: int
    attempt: int
    started_at: float
    ended_at: float | None
    ending: str | None


class Books:
    """Plain SQL on the run's database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._closed: dict[int, Any] = {}

    def rows(self, statement: str, *values: Any) -> list[Any]:
        with closing(connected(self._url)) as connection:
            cursor = connection.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor)
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def execute(self, statement: str, *values: Any) -> None:
        with closing(connected(self._url)) as connection, connection:
            connection.cursor().execute(statement, values)

    def closed(self, study: str) -> int:
        (row,) = self.rows(
            "select count(*) as n from hn_tickets t join hn_studies s on s.id = t.study_id "
            "where s.name = %s and t.state = 'closed'",
            study,
        )
        return int(row.n)

    def is_over(self, study: str) -> bool:
        (row,) = self.rows("select state from hn_studies where name = %s", study)
        return row.state in ("finished", "cancelled")

    def attempts(self, study: str) -> list[Attempt]:
        return [
            Attempt(*row)
            for row in self.rows(
                "select a.ticket_id, a.attempt, a.started_at, a.ended_at, a.ending from hn_attempts a "
                "join hn_tickets t on t.id = a.ticket_id join hn_studies s on s.id = t.study_id "
                "where s.name = %s order by a.started_at",
                study,
            )
        ]

    def supervisors(self) -> set[int]:
        """Of the whole run."""
        return {row.pid for row in self.rows("select distinct pid from hn_attempts")}

    def note_closed(self) -> None:
        """Remembers what is closed by now: it must never change."""
        for row in self.rows(_CLOSED):
            self._closed.setdefault(row.id, row)

    def changed(self) -> list[str]:
        """What was closed and is not the same any more."""
        now = {row.id: row for row in self.rows(_CLOSED)}
        return [
            f"ticket {ticket} has changed after its end: {row} is now {now.get(ticket)}"
            for ticket, row in self._closed.items()
            if now.get(ticket) != row
        ]

    def faults_of(self, study: str, n_trials: int) -> list[str]:
        """Everything that is wrong with the books of a study that is over."""
        wrong: list[str] = []
        tickets = self.rows(
            "select t.*, s.optuna_study_id as optuna from hn_tickets t join hn_studies s on s.id = t.study_id "
            "where s.name = %s order by t.ordinal",
            study,
        )
        states = Counter(ticket.state for ticket in tickets)
        if states != {"closed": n_trials}:
            wrong.append(f"{study}: tickets {dict(states)}, not {n_trials} closed")
        endings = Counter(ticket.ending for ticket in tickets)
        if endings != {"completed": n_trials}:
            wrong.append(f"{study}: endings {dict(endings)}")
        trials = {
            row.trial_id: row
            for row in self.rows(
                "select t.trial_id, t.number, t.state::text as state, t.datetime_complete, v.value, "
                "p.param_value as x, "
                "(select value_json from trial_user_attributes a where a.trial_id = t.trial_id "
                " and key = 'highnoon:ticket') as ticket from trials t "
                "left join trial_values v on v.trial_id = t.trial_id "
                "left join trial_params p on p.trial_id = t.trial_id and p.param_name = 'x' where t.study_id = %s",
                tickets[0].optuna if tickets else 0,
            )
        }
        open_trials = [row.number for row in trials.values() if row.state in ("RUNNING", "WAITING")]
        if open_trials:
            wrong.append(f"{study}: open Optuna trials {open_trials}")
        numbers = Counter(row.number for row in trials.values())
        if any(count > 1 for count in numbers.values()):
            wrong.append(f"{study}: trial numbers given twice")
        attempts = self.rows(
            "select a.*, s.name from hn_attempts a join hn_tickets t on t.id = a.ticket_id "
            "join hn_studies s on s.id = t.study_id where s.name = %s",
            study,
        )
        by_ticket: dict[int, list[Any]] = {}
        for attempt in attempts:
            by_ticket.setdefault(attempt.ticket_id, []).append(attempt)
            where = f"{study}: attempt {attempt.ticket_id}/{attempt.attempt}"
            if attempt.ended_at is None or attempt.ending is None:
                wrong.append(f"{where} has not ended")
            elif attempt.ended_at < attempt.started_at:
                wrong.append(f"{where} ended before it started")
            if attempt.foreign_ending is not None:
                wrong.append(f"{where} found its trial ended by others: {attempt.foreign_ending}")
            if not attempt.worker_id:
                wrong.append(f"{where} was held by none")
        given = Counter(attempt.trial_number for attempt in attempts)
        if any(count > 1 for count in given.values()):
            wrong.append(f"{study}: attempts share a trial")
        for ticket in tickets:
            wrong += [f"{study}: {text}" for text in _ticket_faults(ticket, by_ticket.get(ticket.id, []), trials)]
        return wrong


def _ticket_faults(ticket: Any, attempts: list[Any], trials: dict[int, Any]) -> list[str]:
    where, wrong = f"ticket {ticket.id}", []
    attempts.sort(key=lambda attempt: attempt.attempt)
    if [attempt.attempt for attempt in attempts] != list(range(1, ticket.attempt + 1)):
        wrong.append(f"{where}: attempts {[a.attempt for a in attempts]} under fence {ticket.attempt}")
    for one, next_one in pairwise(attempts):
        if one.ended_at is not None and next_one.started_at < one.ended_at:
            wrong.append(f"{where}: attempts {one.attempt} and {next_one.attempt} overlap")
    of_ticket = [row for row in trials.values() if row.ticket == str(ticket.id)]
    counted = [row for row in of_ticket if row.state in ("COMPLETE", "PRUNED")]
    if [row.trial_id for row in counted] != [ticket.trial_id]:
        wrong.append(f"{where}: counted trials {[row.trial_id for row in counted]}, not {ticket.trial_id}")
    elif counted[0].value != ticket.value:
        wrong.append(f"{where}: value {ticket.value}, {counted[0].value} in Optuna")
    elif abs(ticket.value - value_of(counted[0].x)) > 1e-9:
        wrong.append(f"{where}: value {ticket.value} at x = {counted[0].x}")
    if len(of_ticket) != len(attempts):
        wrong.append(f"{where}: {len(attempts)} attempts and {len(of_ticket)} trials")
    if len({row.x for row in of_ticket}) > 1:
        wrong.append(f"{where}: its attempts tried different points")
    if attempts and attempts[-1].ending != ticket.ending:
        wrong.append(f"{where}: {ticket.ending}, its last attempt {attempts[-1].ending}")
    if ticket.lease_expires_at is not None:
        wrong.append(f"{where}: still leased")
    if counted and ticket.closed_at is not None:
        late = counted[0].datetime_complete.replace(tzinfo=timezone.utc).timestamp() - ticket.closed_at
        if abs(late) > 1.0:
            wrong.append(f"{where}: closed {late:.1f} s apart from its trial")
    return wrong


def leftovers(world: World, supervisors: Collection[int]) -> list[str]:
    """What a run must not leave when its nodes have ended in order."""
    home = world.cluster.folder / "home"
    wrong = [f"process {process.pid} {process.name()} is left" for process in world.processes()]
    wrong += [f"folder {path.relative_to(home)} is left" for path in home.glob("*/nodes/*")]
    wrong += [f"folder {path.relative_to(home)} is left" for path in home.glob("*/runs/*/*/tmp")]
    wrong += [f"checkpoints {path.relative_to(home)} are left" for path in home.glob("*/checkpoints/*/*")]
    wrong += [f"temporary {path} is left" for path in (world.cluster.folder / TEMPORARY).iterdir()]
    wrong += [f"cgroup {path} is left" for path in _cgroups(supervisors)]
    return wrong


def _cgroups(supervisors: Collection[int]) -> list[Path]:
    """Groups of the attempts of these supervisors."""
    found = []
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            parts = name.split("-")
            if len(parts) == 4 and parts[0] == "highnoon" and int(parts[1]) in supervisors:
                found.append(Path(folder, name))
    return found
