"""Studies of every kind that a page may have to show. None of them was run; the stores write them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import optuna
from sqlalchemy import text

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.conditions import active_part
from highnoon.shared.domain.note import NoteChange
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.search.samplers import distributions
from highnoon.shared.store.access import opened
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.store.optuna_trials import NewTrial
from highnoon.shared.store.submission import submit
from tests.ledger import FAILED, USED, Ledger
from tests.made_up import FACTS, make_study, spec_of

_GOALS: dict[str, Any] = {
    "name": "goals",
    "objective": "objectives:never",
    "objectives": {"loss": "minimize", "accuracy": "maximize"},
    "prune_on": "loss",
    "constraints": {"latency_ms": "<= 20"},
    "search_space": {
        "optimizer": ["categorical", ["adam", "sgd"]],
        "rate": ["log_uniform", 1e-4, 1e-1],
        "momentum": {"type": "float", "low": 0.0, "high": 0.99, "when": {"optimizer": "sgd"}},
        "nesterov": {"type": "bool", "when": {"optimizer": "sgd"}},
        "width": ["int", 32, 512, 32],
        "heads": ["categorical", [2, 4, 8]],
    },
    "param_constraints": ["width % heads == 0"],
    "n_trials": 60,
    "seed": 1,
}


def make_studies(url: str) -> None:
    """One that runs, one that waits, one that is over, and those whose pages are unlike the others."""
    make_study(url, "digits", n_trials=80, done=60, running=4)
    make_study(url, "large", n_trials=2000)
    ledger = Ledger(url, create=False)
    submit(spec_of("fresh"), ledger.access)
    _make_goals(ledger)
    _make_sixty(ledger)
    _make_failed(ledger)
    for name in ("large", "broken"):
        _end(ledger, name)
    ledger.close()
    _make_plain(url)
    _make_wide(url)


def keep_worker(url: str) -> None:
    """The worker of the made-up studies reports again that it is there."""
    with opened(url) as books:
        Nodes(books.database).beat("w1", FACTS)


def _make_goals(ledger: Ledger) -> None:
    """Two objectives, conditions, constraints kept and missed, metrics, artifacts, notes and tags."""
    spec, dice = StudySpec.from_json(_GOALS), random.Random(7)
    record = submit(spec, ledger.access).record
    for number, ticket in enumerate(ledger.tickets(record)[:40]):
        drawn = {
            "optimizer": dice.choice(["adam", "sgd"]),
            "rate": 10 ** dice.uniform(-4, -1),
            "momentum": dice.uniform(0, 0.99),
            "nesterov": dice.random() < 0.5,
            "width": dice.randrange(32, 513, 32),
            "heads": dice.choice([2, 4, 8]),
        }
        latency_ms = 4 + drawn["width"] / 25 + dice.random()
        loss = 1.1 - drawn["width"] / 640 + dice.random() / 5
        files = [("model.keras", 4_300_000), ("confusion matrix of the last epoch.png", 81_000)] if number == 11 else []
        outcome = Outcome(
            ending=Ending.COMPLETED,
            values=(loss, 1 - loss / 3 + dice.random() / 20),
            misses={"latency_ms": latency_ms / 20 - 1},
            metrics={"latency_ms": latency_ms, "validation_accuracy_of_the_last_epoch": 1 - loss / 4},
            artifacts=tuple(
                Artifact.of_file(f"a{place}", name, size_bytes=size, sha256=f"{place}" * 64)
                for place, (name, size) in enumerate(files)
            ),
            memory=USED,
            metric_history={
                name: tuple((step, start / (step + 1) ** power) for step in range(0, 400, 2))
                for name, start, power in (("validation_accuracy_of_the_last_epoch", 0.9, -0.02), ("grad_norm", 3, 0.5))
            },
        )
        params = active_part(spec.search_space, drawn)
        domains = distributions({name: spec.search_space[name] for name in params})
        lease = ledger.start(ticket, new=NewTrial(params=params, distributions=domains))
        ledger.finish(lease, outcome, reports=[Report(step=step, value=loss + 1 / (step + 1)) for step in range(6)])
    notes = NoteStore(ledger.database)
    notes.change("goals", None, NoteChange(text="After the data of October.\nSee report 12.", tag=("baseline", "sgd")))
    notes.change("goals", 11, NoteChange(text="The one to beat", tag=("promising",)))


def _make_sixty(ledger: Ledger) -> None:
    """Sixty parameters."""
    space = {f"parameter_{number:02}": ["uniform", 0.0, 1.0] for number in range(60)}
    spec = StudySpec.from_json(
        {"name": "sixty", "objective": "objectives:never", "search_space": space, "n_trials": 30, "seed": 1}
    )
    dice, record = random.Random(2), submit(spec, ledger.access).record
    for ticket in ledger.tickets(record)[:24]:
        params = {name: dice.random() for name in space}
        new = NewTrial(params=params, distributions=distributions(spec.search_space))
        value = params["parameter_07"] + params["parameter_31"] ** 2
        ledger.finish(ledger.start(ticket, new=new), Outcome(ending=Ending.COMPLETED, value=value))


def _make_failed(ledger: Ledger) -> None:
    """Every trial failed."""
    record = submit(spec_of("broken", n_trials=3), ledger.access).record
    traceback = 'Traceback (most recent call last):\n  File "train.py", line 3, in objective\nValueError: no data'
    for ticket in ledger.tickets(record):
        ledger.run(ticket, replace(FAILED, message="ValueError: no data", traceback=traceback))


def _end(ledger: Ledger, name: str) -> None:
    with ledger.database.transaction() as connection:
        connection.execute(
            text("update hn_studies set state = 'finished', ended_at = hn_now_1() where name = :name"), {"name": name}
        )


def _make_plain(url: str) -> None:
    """Another program's, with names and choices that do not know how narrow a screen may be."""

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("a_categorical_parameter_with_long_choices", ["a long choice of words", "short", "b"])
        return trial.suggest_float("learning_rate_of_the_second_optimizer_group", 1e-5, 1, log=True)

    optuna.create_study(study_name="plain optuna", storage=url, direction="maximize").optimize(objective, n_trials=8)


def _make_wide(url: str) -> None:
    """Another program's, with sixty parameters, one of them with three thousand choices."""
    words = [f"choice-{number:04}" for number in range(3000)]

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("word", words)
        return sum(trial.suggest_float(f"parameter_{number:02}", 0.0, 1.0) for number in range(59))

    sampler = optuna.samplers.RandomSampler(seed=1)
    optuna.create_study(study_name="wide", storage=url, sampler=sampler).optimize(objective, n_trials=12)
