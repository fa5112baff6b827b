"""Optuna in `benchmarks.peers.reliability`: `optimize` with its heartbeat, and ask and tell in Celery tasks.

A process of it is started by `benchmarks.peers.reliability`, with the addresses in its environment.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import optuna
from celery import Celery
from optuna.storages import RDBStorage, RetryFailedTrialCallback
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from benchmarks.peers import training_record

NAME = "peers"
HEARTBEAT_S = 2

app = Celery("peers", broker=os.environ.get("PEERS_REDIS_URL", "memory://"))
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, task_default_queue="peers")


def train(trial: Any) -> float:
    """The objective."""
    return training_record.train(trial.suggest_float("x", 0.0, 1.0), trial.report)


def optimize(n_trials: int) -> None:
    """One worker with `study.optimize`: runs trials until so many are complete."""
    retry = RetryFailedTrialCallback(max_retry=3)
    storage = RDBStorage(
        os.environ["PEERS_DATABASE_URL"],
        heartbeat_interval=HEARTBEAT_S,
        grace_period=2 * HEARTBEAT_S,
        failed_trial_callback=retry,
    )
    study = optuna.load_study(study_name=NAME, storage=storage)
    study.optimize(train, callbacks=[MaxTrialsCallback(n_trials, states=(TrialState.COMPLETE,))])


@app.task  # type: ignore[untyped-decorator]
def ask_and_tell() -> None:
    """A Celery task that runs one trial, as tutorials of ask and tell have it."""
    study = optuna.load_study(study_name=NAME, storage=os.environ["PEERS_DATABASE_URL"])
    trial = study.ask()
    study.tell(trial, train(trial))


if __name__ == "__main__":
    optimize(int(sys.argv[1]))
