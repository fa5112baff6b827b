"""What a trial costs beside its training: `python -m benchmarks.overhead` (or `make bench`).

Runs real studies through `coordinator start` with two slots in a scratch home, and reads the figures from the
ledger's own times. Prints one line per figure and, with `--json FILE`, writes them. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from highnoon.coordinator.local.stack import serving_database
from highnoon.shared.runtime.urls import normalise
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.database import Database
from highnoon.shared.store.studies import Studies

HERE = Path(__file__).parent
SLOTS = 2
WARM_UP = 20
"""Trials left out of a rate: connections, caches and the first ask of each supervisor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One study through `coordinator start`: its attempts, and when the command was typed."""

    attempts: list[AttemptRecord]
    typed_at: float
    log_tails: list[str]

    @property
    def trials_per_s(self) -> float:
        """Of all slots together, from the end of the warm-up to the end of the last trial."""
        ends = sorted(attempt.ended_at for attempt in self.attempts if attempt.ended_at is not None)
        return (len(ends) - WARM_UP) / (ends[-1] - ends[WARM_UP - 1])

    @property
    def seconds_to_first_trial(self) -> float:
        """From the command to the first claim; the database's clock is this machine's."""
        return min(attempt.started_at for attempt in self.attempts) - self.typed_at


def run_study(home: Path, name: str, *, objective: str, n_trials: int, slots: int = SLOTS, **keys: Any) -> Run:
    """Runs the study to its end. Raises CalledProcessError when the command fails."""
    spec = {
        "name": name,
        "objective": f"objectives.py:{objective}",
        "code_dir": str(HERE),
        "n_trials": n_trials,
        "seed": 1,
        "pruner": "none",
        "search_space": {f"x{i}": ["uniform", 0.0, 1.0] for i in range(5)},
        **keys,
    }
    path = home.parent / f"{name}.json"
    path.write_text(json.dumps(spec))
    typed_at = time.time()
    subprocess.run(
        [sys.executable, "-m", "coordinator", "start", str(path), "--workers", str(slots)],
        env={**os.environ, "HIGHNOON_HOME": str(home)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with serving_database(home) as url:
        database = Database(url)
        studies = Studies(database)
        attempts = studies.attempts(studies.get(name).id)
        database.close()
    return Run(attempts=attempts, typed_at=typed_at, log_tails=[attempt.log_tail or "" for attempt in attempts])


def plain_optuna_per_s(home: Path, sampler: str, n_trials: int) -> float:
    """The same no-op trials by `Study.optimize` in as many processes as there are slots, on the same PostgreSQL."""
    name = f"plain-{sampler}"
    with serving_database(home) as url:
        optuna.create_study(study_name=name, storage=normalise(url))
        code = f"from benchmarks.overhead import optimize_plainly; optimize_plainly({name!r}, {sampler!r}, {n_trials})"
        environ = {**os.environ, "PLAIN_OPTUNA_URL": normalise(url)}
        processes = [subprocess.Popen([sys.executable, "-c", code], env=environ) for _ in range(SLOTS)]
        if any(process.wait() for process in processes):
            raise RuntimeError(f"a process of plain Optuna failed ({sampler})")
        trials = optuna.load_study(study_name=name, storage=normalise(url)).trials
    ends = sorted(trial.datetime_complete for trial in trials if trial.datetime_complete is not None)
    return (len(ends) - WARM_UP) / (ends[-1] - ends[WARM_UP - 1]).total_seconds()


def optimize_plainly(name: str, sampler: str, n_trials: int) -> None:
    """Runs inside each of those processes, until the study has `n_trials`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = optuna.samplers.RandomSampler() if sampler == "random" else optuna.samplers.TPESampler()
    study = optuna.load_study(study_name=name, storage=os.environ["PLAIN_OPTUNA_URL"], sampler=chosen)

    def noop(trial: optuna.Trial) -> float:
        return sum(trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(5))

    study.optimize(noop, callbacks=[optuna.study.MaxTrialsCallback(n_trials)])


def fork_times_ms(count: int = 60) -> tuple[list[float], list[float]]:
    """(fork returned, trial process ready) in milliseconds, from a process that has TensorFlow imported."""
    code = f"from benchmarks.overhead import measure_forks; measure_forks({count})"
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    return measured["forked"], measured["ready"]


def measure_forks(count: int) -> None:
    """Runs in the process of `fork_times_ms`; prints JSON."""
    from highnoon.workers.trial import huge_pages

    with huge_pages.room_for_objects():  # as the pool does
        import keras  # noqa: F401
        import tensorflow  # noqa: F401

    from highnoon.shared.objective.repetition import Repeats
    from highnoon.shared.objective.trial_task import TrialTask
    from highnoon.workers.trial.launch import launch
    from highnoon.workers.trial.output import Output
    from highnoon.workers.trial.process import Assignment
    from highnoon.workers.trial.template import Template

    forked, ready = [], []
    huge_pages.gather()
    template = Template()  # ends with this object
    forks = template.fork_server({})
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            output = Output(Path(folder, "log"), limit_bytes=10_000, tail_bytes=1_000)
            assignment = Assignment(
                task=TrialTask(
                    study="forks",
                    number=number,
                    params={"x0": 0.0},
                    repeats=Repeats(seed=1),
                    saved=f"{folder}/{number}/saved",
                    checkpoints=f"{folder}/checkpoints",
                ),
                ticket=number,
                attempt=1,
                objective="objectives.py:noop",
                code_dir=str(HERE),
                work_dir=f"{folder}/{number}",
            )
            began = time.perf_counter()
            running = launch("fork", assignment, output, forks)
            forked.append((time.perf_counter() - began) * 1000)
            while not any(event["event"] == "hello" for event in running.pipe.receive(None)):
                continue
            ready.append((time.perf_counter() - began) * 1000)
            while running.poll() is None:
                output.drain()
            running.clean_up(1.0)
            output.close()
    sys.stdout.write(json.dumps({"forked": forked, "ready": ready}) + "\n")


def percentiles(values: Sequence[float]) -> str:
    """p50 and p95 as text."""
    cuts = statistics.quantiles(values, n=20)
    return f"{statistics.median(values):.1f} / {cuts[18]:.1f}"


class Figures(dict[str, Any]):
    """Prints each figure when it is set: all of them take minutes."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        print(f"{name:50} {value}", flush=True)


def main() -> None:
    """Prints the figures as they are measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--trials", type=int, default=300, help="no-op trials per study")
    arguments = parser.parse_args()
    figures = Figures()
    figures["machine"] = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    with tempfile.TemporaryDirectory(prefix="highnoon-bench-") as folder:
        home = Path(folder, "home")
        n = arguments.trials
        for name, keys in {
            "first": {"objective": "noop", "n_trials": WARM_UP + 2, "sampler": "random"},
            "isolated, random": {"objective": "noop", "n_trials": n, "sampler": "random"},
            "isolated, tpe": {"objective": "noop", "n_trials": n, "sampler": "tpe"},
            "not isolated, random": {"objective": "noop", "n_trials": n, "sampler": "random", "isolation": "none"},
            "not isolated, tpe": {"objective": "noop", "n_trials": n, "sampler": "tpe", "isolation": "none"},
            "isolated, small Keras": {"objective": "small_keras", "n_trials": WARM_UP + 40, "sampler": "random"},
            "100 reports": {"objective": "reports", "n_trials": WARM_UP + 10, "sampler": "random", "pruner": "median"},
        }.items():
            run = run_study(home, name, **keys)
            if name == "first":
                figures["start to first trial, empty home (s)"] = round(run.seconds_to_first_trial, 2)
                continue
            figures[f"{name}: trials/s"] = round(run.trials_per_s, 2)
            if name == "isolated, random":
                figures["start to first trial, existing home (s)"] = round(run.seconds_to_first_trial, 2)
            printed = {
                "private_bytes": ("private memory of a Keras trial (MB)", 1e6),
                "report_us": ("report (us)", 1),
                "should_prune_us": ("should_prune, median pruner (ms)", 1e3),
                "reporting_permille": ("100 reports with pruning, of a trial of 1 s (%)", 10),
            }
            for key, (figure, unit) in printed.items():
                found = [int(number) for tail in run.log_tails for number in re.findall(rf"\b{key}=(\d+)", tail)]
                if found:
                    figures[f"{figure}, median"] = round(statistics.median(found) / unit, 2)
        for sampler in ("random", "tpe"):
            figures[f"plain Optuna, {SLOTS} processes, {sampler}: trials/s"] = round(
                plain_optuna_per_s(home, sampler, n), 2
            )
        forked, ready = fork_times_ms()
        figures["fork p50 / p95 (ms)"] = percentiles(forked)
        figures["fork to trial process ready p50 / p95 (ms)"] = percentiles(ready)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
