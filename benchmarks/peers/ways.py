"""The ways of running the same study that are compared, and how each is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
import psutil

from benchmarks.peers.environments import python_of
from benchmarks.peers.optuna_reliability import HEARTBEAT_S, NAME
from benchmarks.peers.training_record import N_TRIALS, RECORD, SLOTS

HERE = Path(__file__).parent
PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Run:
    """The services and the folder of one run."""

    database_url: str
    redis_url: str
    folder: Path

    @property
    def record(self) -> Path:
        """The file to which the trials write."""
        return self.folder / "record"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every process of the run; by the record's name in it they are found afterwards."""
        return {
            **os.environ,
            RECORD: str(self.record),
            "SYNETUNE_FOLDER": str(self.folder),
            "PEERS_DATABASE_URL": self.database_url,
            "PEERS_REDIS_URL": self.redis_url,
            "HIGHNOON_DATABASE_URL": self.database_url,
            "HIGHNOON_REDIS_URL": self.redis_url,
            "HIGHNOON_HOME": str(self.folder / "home"),
            "HIGHNOON_OBJECTIVES": f"{HERE}/*.py",
            "HIGHNOON_PRELOAD": "",
        }


def trainer(pid: int) -> int:
    """The process that trains is the worker."""
    return pid


def supervisor(pid: int) -> int:
    """Of HighNoon's training: its parent's parent, behind the fork server. Training and fork server end with it."""
    return psutil.Process(pid).parents()[1].pid


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`commands` are kept running until they end by themselves; the first is the driver. `worker` is what is killed
    where a training is to be ended."""

    name: str
    commands: Callable[[Run], list[list[str]]]
    submit: Callable[[Run], None] = lambda run: None
    worker: Callable[[int], int] = trainer
    ends_by_itself: bool = True
    has_optunas_tables: bool = False


def _python(name: str, script: str) -> Callable[[Run], list[list[str]]]:
    return lambda run: [[python_of(name), str(HERE / script), str(run.folder)]]


def _submit_highnoon(run: Run) -> None:
    spec = {
        "name": NAME,
        "objective": f"{HERE}/reliability_objective.py:train",
        "n_trials": N_TRIALS,
        "search_space": {"x": ["uniform", 0.0, 1.0]},
    }
    (run.folder / "study.json").write_text(json.dumps(spec))
    _call([PYTHON, "-m", "coordinator", "submit", str(run.folder / "study.json")], run.environ)


def _create_optunas(run: Run) -> None:
    optuna.create_study(study_name=NAME, storage=run.database_url)


def _send_tasks(run: Run) -> None:
    _create_optunas(run)
    code = "from benchmarks.peers.optuna_reliability import ask_and_tell\n"
    code += f"for _ in range({N_TRIALS}): ask_and_tell.delay()"
    _call([PYTHON, "-c", code], run.environ)


def _call(command: list[str], environ: Mapping[str, str]) -> None:
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)


_CELERY_APP = "benchmarks.peers.optuna_reliability"
_CELERY = ["-m", "celery", "-A", _CELERY_APP, "worker", "--concurrency", str(SLOTS), "-l", "ERROR"]

WAYS = {
    "highnoon": Way(
        name="HighNoon",
        commands=lambda run: [
            [PYTHON, "-m", "coordinator", "start"],
            [PYTHON, "-m", "workers", "start", "--slots", str(SLOTS)],
        ],
        submit=_submit_highnoon,
        worker=supervisor,
        ends_by_itself=False,
        has_optunas_tables=True,
    ),
    "optimize": Way(
        name=f"Optuna `optimize`, heartbeat of {HEARTBEAT_S} s",
        commands=lambda run: [[PYTHON, "-m", "benchmarks.peers.optuna_reliability", str(N_TRIALS)]] * SLOTS,
        submit=_create_optunas,
        has_optunas_tables=True,
    ),
    "celery": Way(
        name="Optuna's ask and tell in Celery",
        commands=lambda run: [[PYTHON, *_CELERY]],
        submit=_send_tasks,
        ends_by_itself=False,
        has_optunas_tables=True,
    ),
    "ray": Way(name="Ray Tune", commands=_python("ray", "ray_reliability.py")),
    "syne": Way(name="Syne Tune", commands=_python("syne", "syne_reliability.py")),
}
