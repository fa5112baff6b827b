"""Does pruning pay? `python -m benchmarks.pruning`: time until the digits example reaches a fixed loss, by pruner.

Each entry searches the space of examples/digits with TPE, one trial after the other in one process, until a trial
reports the target or `--trials` trials are over (which counts as the time that they took).

    none      HPOTrialManager without pruning
    asha      HPOTrialManager with ASHA, its rungs from the first whole trial
    median    Optuna's `study.optimize` with its MedianPruner, the same objective and sampler

The seconds are the processor's, which a busy machine changes little, and beside them the clock's; the import of
TensorFlow is left out. Each seed of each entry is a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler

import highnoon as hn
from highnoon.shared.domain.space import parse_space
from highnoon.shared.objective.study_file import load_study_file
from highnoon.shared.search.samplers import distributions

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits"
ENTRIES = ("none", "asha", "median")

Train = Callable[[dict[str, Any]], float]


class _TargetReached(KeyboardInterrupt):
    """Ends the search, as Ctrl-C does: no runner takes it for a failure."""


class _Reports:
    """What the example calls in the place of highnoon's functions: counts, and ends the search at the target."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._report: Callable[[float, int], None] = hn.report
        self._should_prune: Callable[[], bool] = hn.should_prune
        self.epochs = 0

    def report(self, value: float, step: int) -> None:
        self.epochs += 1
        if value <= self._target:
            raise _TargetReached
        self._report(value, step)

    def should_prune(self) -> bool:
        return self._should_prune()

    def go_to(self, trial: optuna.Trial) -> None:
        """From now on this trial of Optuna's gets them."""
        self._report, self._should_prune = trial.report, trial.should_prune


def run(entry: str, seed: int, target: float, trials: int) -> dict[str, Any]:
    """Seconds until the target, and how many trials and epochs that took."""
    sys.path.insert(0, str(EXAMPLE))
    example: Any = importlib.import_module("objective")
    reports = _Reports(target)
    hn.report, hn.should_prune = reports.report, reports.should_prune
    space = load_study_file(EXAMPLE / "study.toml").to_json()["search_space"]
    begun = 0

    def train(params: dict[str, Any]) -> float:
        nonlocal begun
        begun += 1
        return float(example.train(params))

    began_s, cpu_s = time.monotonic(), time.process_time()
    reached = False
    try:
        if entry == "median":
            _optimize_by_optuna(train, distributions(parse_space(space)), seed, trials, reports)
        else:
            hpo = hn.HPOTrialManager("digits", n_trials=trials, seed=seed, pruner=entry, isolation="none")
            hpo.optimize(train, space, show_progress=False)
    except _TargetReached:
        reached = True
    found = {"reached": reached, "trials": begun, "epochs": reports.epochs}
    seconds = {"cpu_s": time.process_time() - cpu_s, "clock_s": time.monotonic() - began_s}
    return {"entry": entry, "seed": seed, **found, **{name: round(value, 2) for name, value in seconds.items()}}


def _optimize_by_optuna(
    train: Train, space: Mapping[str, BaseDistribution], seed: int, trials: int, reports: _Reports
) -> None:
    def objective(trial: optuna.Trial) -> float:
        reports.go_to(trial)
        try:
            return train({name: trial._suggest(name, domain) for name, domain in space.items()})
        except hn.TrialPruned:
            raise optuna.TrialPruned from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=trials, catch=())


def main() -> int:
    options = _options()
    if options.one:
        print(json.dumps(run(options.entries[0], options.first_seed, options.target, options.trials)))
        return 0
    runs = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for entry in options.entries:
            given = ["--one", "--entries", entry, "--first-seed", seed, "--target", options.target]
            command = [sys.executable, "-m", "benchmarks.pruning", *map(str, given), "--trials", str(options.trials)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(runs[-1], file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(runs, indent=1))
    _show(runs, options.entries)
    return 0


def _show(runs: list[dict[str, Any]], entries: list[str]) -> None:
    columns = ("cpu_s", "clock_s", "trials", "epochs")
    print(f"{'median':10s}" + "".join(f"{column:>10s}" for column in columns) + f"{'reached':>10s}")
    for entry in entries:
        own = [one for one in runs if one["entry"] == entry]
        figures = [statistics.median(one[column] for one in own) for column in columns]
        reached = f"{sum(one['reached'] for one in own)}/{len(own)}"
        print(f"{entry:10s}" + "".join(f"{figure:10.1f}" for figure in figures) + f"{reached:>10s}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=0.022)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--entries", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    parser.add_argument("--json", type=Path, help="where to write all runs")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
