"""Optuna in `benchmarks.peers.throughput`: `Study.optimize` in a process, and a Celery task as tutorials have it.

Started by `benchmarks.peers.throughput`, with the addresses in its environment:
`python -m benchmarks.peers.optuna_throughput WORK TRIALS SAMPLER`.
"""

from __future__ import annotations

import os
import sys

import optuna
from celery import Celery
from optuna.study import MaxTrialsCallback, Study

from benchmarks.peers.work import SPACE, WORK

NAME = "throughput"

app = Celery("throughput", broker=os.environ.get("PEERS_REDIS_URL", "memory://"))
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, task_default_queue="throughput")


def run_trial(trial: optuna.Trial, work: str) -> float:
    """One trial, with reports and pruning where the work has them."""
    params = {name: trial.suggest_float(name, *bounds) for name, bounds in SPACE.items()}

    def report(value: float, step: int) -> bool:
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
        return True

    return WORK[work](params, report)


def study_of(sampler: str) -> Study:
    """Opens the study in this process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = optuna.samplers.RandomSampler() if sampler == "random" else optuna.samplers.TPESampler()
    return optuna.load_study(study_name=NAME, storage=os.environ["PEERS_DATABASE_URL"], sampler=chosen)


@app.task  # type: ignore[untyped-decorator]
def run_task(work: str, sampler: str) -> None:
    """A Celery task that runs one trial."""
    study_of(sampler).optimize(lambda trial: run_trial(trial, work), n_trials=1)


if __name__ == "__main__":
    work, n_trials, sampler = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    study_of(sampler).optimize(lambda trial: run_trial(trial, work), callbacks=[MaxTrialsCallback(n_trials)])
