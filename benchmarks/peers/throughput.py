"""Trials per second beside other programs: `python -m benchmarks.peers.throughput [--work noop] [--ways ray,optuna]`.

The same work with two slots, one program after the other, in alternating rounds: no-op trials, a small Keras training,
trainings of one and ten seconds, a second with a hundred reports and pruning. Prints a table for each work with the
median, the spread and the ratio to HighNoon's; `--json FILE` writes every run. Makes the environments of Ray Tune and
Syne Tune first. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import optuna

from benchmarks.overhead import SLOTS, run_study
from benchmarks.peers.environments import python_of
from benchmarks.peers.optuna_throughput import NAME
from benchmarks.peers.work import SPACE, WORK
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.urls import normalise

HERE = Path(__file__).parent
PYTHON = sys.executable
TRIALS: dict[str, int] = {"noop": 200, "small_keras": 60, "one_second": 40, "ten_seconds": 12, "hundred_reports": 40}
SLOW: dict[str, int] = {"noop": 40, "small_keras": 12, "one_second": 24, "ten_seconds": 8, "hundred_reports": 24}
"""Of programs that start an interpreter for each trial."""

Way = Callable[[str, str, Path], list[float]]
"""From work, sampler and an empty folder to the times at which trials ended."""


def highnoon(isolation: str) -> Way:
    """`coordinator start` with its own services."""

    def run(work: str, sampler: str, folder: Path) -> list[float]:
        study = run_study(
            folder / "home",
            f"{work}-{isolation}",
            objective=work,
            n_trials=TRIALS[work],
            code_dir=str(HERE),
            sampler=sampler,
            pruner="median" if work == "hundred_reports" else "none",
            isolation=isolation,
            search_space={name: ["uniform", *bounds] for name, bounds in SPACE.items()},
        )
        return [attempt.ended_at for attempt in study.attempts if attempt.ended_at is not None]

    return run


def optuna_processes(work: str, sampler: str, folder: Path) -> list[float]:
    """`Study.optimize` in as many processes as there are slots, on a PostgreSQL like ours."""
    with Stack(folder / "stack") as stack:
        environ = _environ(stack)
        optuna.create_study(study_name=NAME, storage=environ["PEERS_DATABASE_URL"])
        command = [PYTHON, "-m", "benchmarks.peers.optuna_throughput", work, str(TRIALS[work]), sampler]
        processes = [subprocess.Popen(command, env=environ) for _ in range(SLOTS)]
        if any(process.wait() for process in processes):
            raise RuntimeError("a process of Optuna failed")
        return _end_times(environ)


def celery_tasks(work: str, sampler: str, folder: Path) -> list[float]:
    """A task for each trial, as tutorials of Celery and Optuna have it."""
    with Stack(folder / "stack") as stack:
        environ = _environ(stack)
        optuna.create_study(study_name=NAME, storage=environ["PEERS_DATABASE_URL"])
        code = "from benchmarks.peers.optuna_throughput import run_task\n"
        code += f"for _ in range({TRIALS[work]}): run_task.delay({work!r}, {sampler!r})"
        subprocess.run([PYTHON, "-c", code], env=environ, check=True)
        worker = ["worker", "--concurrency", str(SLOTS), "-l", "ERROR"]
        command = [PYTHON, "-m", "celery", "-A", "benchmarks.peers.optuna_throughput", *worker]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while len(_end_times(environ)) < TRIALS[work]:
                time.sleep(0.5)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
        return _end_times(environ)


def ray(mode: str) -> Way:
    """Ray Tune: a process for each trial, or actors that are used again."""

    def run(work: str, sampler: str, folder: Path) -> list[float]:
        n_trials = TRIALS[work] if mode == "reuse" else SLOW[work]
        command = [python_of("ray"), str(HERE / "ray_throughput.py"), work, str(n_trials), str(SLOTS), mode]
        return _printed_end_times(command, folder)

    return run


def syne(work: str, sampler: str, folder: Path) -> list[float]:
    """Syne Tune's local backend: an interpreter for each trial."""
    return _printed_end_times(
        [python_of("syne"), str(HERE / "syne_throughput.py"), work, str(SLOW[work]), str(SLOTS)], folder
    )


WAYS: Mapping[str, tuple[str, Way, tuple[str, ...]]] = {
    "highnoon": ("HighNoon, a process for each trial", highnoon("fork"), ("random", "tpe")),
    "highnoon-none": ('HighNoon, `isolation = "none"`', highnoon("none"), ("random", "tpe")),
    "optuna": ("Optuna, `optimize` in two processes", optuna_processes, ("random", "tpe")),
    "celery": ("Optuna in Celery tasks", celery_tasks, ("random",)),
    "ray": ("Ray Tune", ray("default"), ("random",)),
    "ray-reuse": ("Ray Tune, `reuse_actors`", ray("reuse"), ("random",)),
    "syne": ("Syne Tune, local backend", syne, ("random",)),
}


def _environ(stack: Stack) -> dict[str, str]:
    addresses = {"PEERS_DATABASE_URL": normalise(stack.database_url), "PEERS_REDIS_URL": stack.redis_url}
    return {**os.environ, **addresses}


def _end_times(environ: Mapping[str, str]) -> list[float]:
    trials = optuna.load_study(study_name=NAME, storage=environ["PEERS_DATABASE_URL"]).get_trials(deepcopy=False)
    return [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete is not None]


def _printed_end_times(command: list[str], folder: Path) -> list[float]:
    environ = {**os.environ, "PEERS_FOLDER": str(folder), "SYNETUNE_FOLDER": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    return [float(ended_at) for ended_at in json.loads(done.stdout.splitlines()[-1])]


def rate(ends: list[float]) -> float:
    """Trials per second of all slots together, without the first tenth: connections, caches, imports."""
    ordered = sorted(ends)
    warm = max(2, len(ordered) // 10)
    return (len(ordered) - warm) / (ordered[-1] - ordered[warm - 1])


def table(work: str, rates: Mapping[tuple[str, str], list[float]]) -> str:
    """The rates of one work, and how many times as fast HighNoon is with a process for each trial."""
    lines = [f"\n{work}\n", "| Way | sampler | trials/s | of runs | HighNoon's is |", "|---|---|---|---|---|"]
    for (way, sampler), found in rates.items():
        ours = rates.get(("highnoon", sampler)) or rates.get(("highnoon", "random")) or []
        ratio = f"{statistics.median(ours) / statistics.median(found):.1f} x" if ours else "-"
        spread = f"{min(found):.2f} to {max(found):.2f} ({len(found)})"
        lines.append(f"| {WAYS[way][0]} | {sampler} | {statistics.median(found):.2f} | {spread} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the chosen work with the chosen programs, in rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", default=",".join(WORK), help="what a trial does, with commas between")
    parser.add_argument("--ways", default=",".join(WAYS), help="which programs, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, help="of each run, instead of as many as take about a minute")
    parser.add_argument("--json", type=Path, help="also write the rates of every run to this file")
    arguments = parser.parse_args()
    ways, everything = arguments.ways.split(","), {}
    if arguments.trials:
        for known in (TRIALS, SLOW):
            known.update(dict.fromkeys(known, arguments.trials))
    for work in arguments.work.split(","):
        rates: dict[tuple[str, str], list[float]] = defaultdict(list)
        for number in range(arguments.rounds):
            for way in ways:
                _, run, samplers = WAYS[way]
                for sampler in samplers if work == "noop" else ("random",):
                    with tempfile.TemporaryDirectory(prefix="highnoon-peers-") as folder:
                        rates[way, sampler].append(rate(run(work, sampler, Path(folder))))
                    found = rates[way, sampler][-1]
                    print(f"{work}, round {number + 1}: {way}, {sampler}: {found:.2f}/s", file=sys.stderr, flush=True)
        print(table(work, rates), flush=True)
        everything[work] = {f"{way}, {sampler}": found for (way, sampler), found in rates.items()}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    main()
