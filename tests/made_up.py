"""Studies that were never run: thousands of trials with every ending, written in bulk just as the stores write them.

The study itself, its tickets and its direction are made by the real stores; only the history is inserted.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import TrialState
from sqlalchemy import MetaData, Table, bindparam, func, insert, select, update

from highnoon.shared.domain.states import CAUSE, ENDING, MESSAGE, OPTUNA_STATE, TRACEBACK, Ending, TicketState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.search.samplers import distributions
from highnoon.shared.store import optuna_tables as tables
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.connections import allow_longer
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.schema import attempts, db_now, tickets
from highnoon.shared.store.schema import studies as ledger_studies
from highnoon.shared.store.submission import submit

SPACE = {
    "learning_rate": ["log_uniform", 1e-5, 1e-1],
    "units": ["int", 32, 512, 32],
    "dropout": ["uniform", 0.0, 0.5],
    "l2": ["log_uniform", 1e-7, 1e-2],
    "optimizer": ["categorical", ["adam", "rmsprop", "sgd"]],
    "batch_size": ["categorical", [32, 64, 128]],
}
_ENDINGS = (
    (Ending.COMPLETED, None, "", 62),
    (Ending.PRUNED, None, "", 26),
    (Ending.FAILED, "exception", "ValueError: loss is <nan> at step 3", 5),
    (Ending.FAILED, "exited", "the process left with status 1", 1),
    (Ending.STOPPED, "memory_guard", "needed 3.9 GB of 4 GB", 3),
    (Ending.TIMED_OUT, "timeout", "ran for more than 60 s", 2),
    (Ending.KILLED, "signal", "SIGKILL from outside", 1),
)
_MAKING_S = 1800.0
"""A hundred thousand trials are millions of rows."""

_LIMIT_BYTES = 4_000_000_000
FACTS = {
    "version": "0.1.0",
    "cpus": 16,
    "memory_total_bytes": 64_000_000_000,
    "memory_used_bytes": 21_300_000_000,
    "gpus": [
        {
            "uuid": "GPU-5a1c",
            "name": "NVIDIA L4",
            "memory_total_bytes": 24_000_000_000,
            "memory_used_bytes": 9_400_000_000,
        }
    ],
}
_STEPS = 8
_SLOTS = 4


def spec_of(name: str = "digits", **keys: Any) -> StudySpec:
    """A study file's content, with the space of all made-up studies."""
    return StudySpec.from_json(
        {"name": name, "objective": "objectives:never", "search_space": SPACE, "seed": 7, **keys}
    )


def make_study(
    url: str, name: str = "digits", *, n_trials: int = 200, done: int | None = None, running: int = 0, **keys: Any
) -> None:
    """A study of `n_trials` of which `done` are over and `running` are under a lease of a worker that is there."""
    with opened(url, create=True) as access:
        record = submit(spec_of(name, n_trials=n_trials, **keys), access).record
        optuna_id = _optuna_id(access, name)
        over = n_trials if done is None else done
        history = _History(random.Random(name), time.time(), over, running)
        with access.database.transaction() as connection:
            allow_longer(connection, _MAKING_S)
            ticket_ids = list(
                connection.scalars(
                    select(tickets.c.id).where(tickets.c.study_id == record.id).order_by(tickets.c.ordinal)
                )
            )
            first = int(connection.scalar(select(func.coalesce(func.max(tables.trials.c.trial_id), 0))) or 0) + 1
            rows: dict[Table, list[dict[str, Any]]] = {}
            for number in range(over + running):
                for table, row in history.rows(number, ticket_ids[number], first + number, optuna_id):
                    rows.setdefault(table, []).append(row)
            for table in (tables.trials, *(table for table in rows if table is not tables.trials)):
                if table is tickets:
                    _update_tickets(connection, rows[table])
                elif table is _RUNNING:
                    _start_tickets(connection, rows[table])
                else:
                    connection.execute(insert(table), rows.get(table, []))
            connection.execute(
                update(ledger_studies)
                .where(ledger_studies.c.id == record.id)
                .values(started_at=history.began, submitted_at=history.began - 2)
            )
            if access.url.startswith("postgresql"):
                serial = func.pg_get_serial_sequence("trials", "trial_id")
                connection.execute(select(func.setval(serial, first + over + running)))
        if running and not Nodes(access.database).workers(silent_for_s=60):
            nodes = Nodes(access.database)
            nodes.enter("w1", host="node-a", pid=4242, slots=_SLOTS, queues=["cpu"])
            nodes.beat("w1", FACTS)


Row = tuple[Table, dict[str, Any]]

_RUNNING = Table("running", MetaData())
"""Stands for rows of tickets that are running."""


class _History:
    def __init__(self, dice: random.Random, now: float, over: int, running: int) -> None:
        self._dice = dice
        self._space = distributions(spec_of().search_space)
        self._took_s = 20.0
        self._over = over
        self._now = now
        self.began = now - (over + running) / _SLOTS * self._took_s - 30

    def rows(self, number: int, ticket: int, trial_id: int, study_id: int) -> Iterator[Row]:
        """Everything that stores would have written about one trial."""
        dice = self._dice
        params: dict[str, Any] = {
            "learning_rate": 10 ** dice.uniform(-5, -1),
            "units": dice.randrange(32, 513, 32),
            "dropout": dice.uniform(0, 0.5),
            "l2": 10 ** dice.uniform(-7, -2),
            "optimizer": dice.choice(["adam", "rmsprop", "sgd"]),
            "batch_size": dice.choice([32, 64, 128]),
        }
        if number >= self._over:
            yield from self._running_rows(trial_id, study_id, number, ticket, params)
            return
        (chosen,) = dice.choices(_ENDINGS, weights=[row[-1] for row in _ENDINGS])
        ending, cause, message, _ = chosen
        value = _loss(params) + abs(dice.gauss(0, 0.02))
        started = self.began + number // _SLOTS * self._took_s + dice.uniform(0, 2)
        took = dice.uniform(6, 17) if ending is Ending.COMPLETED else dice.uniform(2, 10)
        state = TrialState[OPTUNA_STATE[ending]]
        valued = value if state is not TrialState.FAIL else None
        yield from self._optuna_rows(
            trial_id, study_id, number, ticket, params, chosen, valued, started, started + took
        )
        peak_bytes = int((0.6 + params["units"] / 512 * 2.6 + dice.random() * 0.3) * 1e9)
        outcome = {"ending": ending, "value": valued, "cause": cause, "message": message}
        yield (
            tickets,
            {
                "row": ticket,
                "state": TicketState.CLOSED,
                "attempt": 1,
                "trial_id": trial_id,
                "trial_number": number,
                "ending": ending,
                "value": valued,
                "outcome": outcome,
                "closed_at": started + took,
                "params": params,
            },
        )
        yield (
            attempts,
            {
                "ticket_id": ticket,
                "attempt": 1,
                "worker_id": "w1",
                "host": "node-a",
                "pid": 4300 + number % _SLOTS,
                "trial_number": number,
                "started_at": started,
                "ended_at": started + took,
                "ending": ending,
                "cause": cause,
                "message": message,
                "exit_status": 1 if cause == "exited" else None,
                "signal": "SIGKILL" if cause == "signal" else None,
                "peak_rss_bytes": peak_bytes,
                "memory": {
                    "peak_bytes": peak_bytes,
                    "limit_bytes": _LIMIT_BYTES,
                    "samples": _samples(peak_bytes, took),
                },
                "log_path": f"logs/digits/trial-{number:05d}.log",
                "log_tail": f"epoch 1 loss=0.9\n<script>alert({number})</script>\nepoch 2 loss=0.7\n",
            },
        )

    def _running_rows(
        self, trial_id: int, study_id: int, number: int, ticket: int, params: dict[str, Any]
    ) -> Iterator[Row]:
        began = self._now - self._dice.uniform(5, 40)
        trial = {"trial_id": trial_id, "study_id": study_id, "number": number, "state": TrialState.RUNNING}
        yield tables.trials, {**trial, "datetime_start": _utc(began), "datetime_complete": None}
        for key, word in (("highnoon:ticket", ticket), ("highnoon:attempt", 1)):
            yield tables.user_attrs, {"trial_id": trial_id, "key": key, "value_json": json.dumps(word)}
        for name, given in params.items():
            domain = self._space[name]
            stored = {"param_value": domain.to_internal_repr(given), "distribution_json": distribution_to_json(domain)}
            yield tables.params, {"trial_id": trial_id, "param_name": name, **stored}
        yield _RUNNING, {"row": ticket, "trial_id": trial_id, "trial_number": number, "params": params}
        place = {"worker_id": "w1", "host": "node-a", "pid": 4300 + number % _SLOTS, "trial_number": number}
        nothing = dict.fromkeys(
            ["ended_at", "ending", "cause", "message", "exit_status", "signal", "peak_rss_bytes", "log_tail", "memory"]
        )
        path = f"logs/digits/trial-{number:05d}.log"
        yield attempts, {"ticket_id": ticket, "attempt": 1, **place, "started_at": began, "log_path": path, **nothing}

    def _optuna_rows(
        self,
        trial_id: int,
        study_id: int,
        number: int,
        ticket: int,
        params: dict[str, Any],
        chosen: tuple[Ending, str | None, str, int],
        value: float | None,
        started: float,
        ended: float,
    ) -> Iterator[Row]:
        ending, cause, message, _ = chosen
        state = TrialState[OPTUNA_STATE[ending]]
        times = {"datetime_start": _utc(started), "datetime_complete": _utc(ended)}
        yield tables.trials, {"trial_id": trial_id, "study_id": study_id, "number": number, "state": state, **times}
        for name, given in params.items():
            domain = self._space[name]
            stored = {"param_value": domain.to_internal_repr(given), "distribution_json": distribution_to_json(domain)}
            yield tables.params, {"trial_id": trial_id, "param_name": name, **stored}
        if value is not None:
            yield tables.values, {"trial_id": trial_id, "objective": 0, "value": value, "value_type": "FINITE"}
        attrs = {"highnoon:ticket": ticket, "highnoon:attempt": 1, ENDING: ending, CAUSE: cause, MESSAGE: message}
        if cause == "exception":
            attrs[TRACEBACK] = f'Traceback (most recent call last):\n  File "train.py", line 3, in objective\n{message}'
        for key, word in attrs.items():
            if word:
                yield tables.user_attrs, {"trial_id": trial_id, "key": key, "value_json": json.dumps(word)}
        steps = _STEPS if ending is Ending.COMPLETED else self._dice.randrange(1, _STEPS)
        final = _loss(params)
        for step in range(steps):
            reported = final + math.exp(-step / 2) * 0.8 + self._dice.gauss(0, 0.01)
            stored = {"intermediate_value": reported, "intermediate_value_type": "FINITE"}
            yield tables.reports, {"trial_id": trial_id, "step": step, **stored}


def _samples(peak_bytes: int, took_s: float) -> list[list[float]]:
    """Rises quickly, and is at its peak in the middle."""
    return [[took_s * i / 20, int(peak_bytes * min(1.0, 0.4 + i / 12, 1.25 - i / 60))] for i in range(21)]


def _loss(params: dict[str, Any]) -> float:
    rate: float = (math.log10(params["learning_rate"]) + 2.7) ** 2 * 0.09
    size = (params["units"] / 512 - 0.7) ** 2 * 0.3
    return (
        rate + float(size + params["dropout"] * 0.1) + {"adam": 0.02, "rmsprop": 0.05, "sgd": 0.14}[params["optimizer"]]
    )


def _optuna_id(access: Access, name: str) -> int:
    with access.database.transaction() as connection:
        found = connection.scalar(select(tables.studies.c.study_id).where(tables.studies.c.study_name == name))
    assert found is not None
    return int(found)


def _update_tickets(connection: Any, rows: list[dict[str, Any]]) -> None:
    values: dict[str, Any] = {key: bindparam(key) for key in rows[0] if key != "row"}
    connection.execute(update(tickets).where(tickets.c.id == bindparam("row")).values(values), rows)


def _start_tickets(connection: Any, rows: list[dict[str, Any]]) -> None:
    lease = {"state": TicketState.RUNNING, "attempt": 1, "worker_id": "w1", "step": 3, "rss_bytes": 1_900_000_000}
    values: dict[str, Any] = {key: bindparam(key) for key in rows[0] if key != "row"}
    expiry = {"lease_expires_at": db_now() + 3600.0}
    statement = update(tickets).where(tickets.c.id == bindparam("row")).values({**values, **lease, **expiry})
    connection.execute(statement, rows)


def _utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, timezone.utc).replace(tzinfo=None)
