"""Does a population pay? `python -m benchmarks.population`: the best validation loss after equally many epochs.

Trains the model of examples/digits in process, one trial at a time, with plain SGD, momentum, dropout and penalty to be
found; the epochs of all trials together are the budget, pruned ones included, so that the figures are the same on a
busy machine. The best loss is the lowest of all that were reported.

    pbt             population-based training: as many members as whole trainings fit into the budget
    random          whole trainings
    tpe-asha, ...   our sampler with the pruner asha, nothing configured

Each entry of a seed has the same first weights and data; the seed decides points and batches.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

import highnoon as hn

ROOT = Path(__file__).parents[1]
SPACE = {
    "learning_rate": ("log_uniform", 1e-4, 1.0),
    "momentum": ("uniform", 0.0, 0.95),
    "dropout": ("uniform", 0.0, 0.7),
    "l2": ("log_uniform", 1e-6, 1e-1),
}
INTERVAL = 5


def objective_of(example: Any, epochs: int, seed: int) -> Any:
    """Trains to `epochs`, from the checkpoint in the trial's folder where one is there."""

    def train(params: dict[str, float]) -> float:
        import keras

        keras.utils.set_random_seed(seed)
        example.stay_on_one_core()
        training, validation = example.load_split()
        model = example.build_model({**params, "filters": 8, "units": 64})
        optimizer = keras.optimizers.SGD(params["learning_rate"], momentum=params["momentum"])
        train_epoch = example.compiled_epoch(model, optimizer, training, 64)
        variables = [*model.variables, *optimizer.variables]
        saved = hn.checkpoint_dir() / "state.npz"
        first = 1
        if saved.exists():
            with np.load(saved) as state:
                first = int(state["epoch"]) + 1
                for index, variable in enumerate(variables):
                    variable.assign(state[f"v{index}"])
            optimizer.learning_rate.assign(params["learning_rate"])
        # A later segment has other batches and dropout than the first one.
        keras.utils.set_random_seed(seed * 1000 + first)
        best = float("inf")
        for epoch in range(first, epochs + 1):
            train_epoch()
            loss, _ = example.evaluate(model, validation)
            best = min(best, loss)
            arrays = {f"v{index}": variable.numpy() for index, variable in enumerate(variables)}
            np.savez(saved, epoch=epoch, **arrays)
            hn.report(loss, epoch)
            if hn.should_prune():
                raise hn.TrialPruned
        return best

    return train


def run(entry: str, example: Any, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One study until the budget is used: the best loss, and how many trials it took."""
    spent: list[float] = []

    def ends_with_budget(study: Any, trial: Any) -> None:
        values = trial.intermediate_values
        spent.extend(values[step] for step in sorted(values))
        if len(spent) >= options.budget:
            study.stop()

    if entry == "pbt":
        members = options.budget // options.epochs
        sampler: Any = {"name": "pbt", "population": members, "perturbation_interval": INTERVAL}
        pruner = "none"
    else:
        name, _, pruner = entry.partition("-")
        sampler, pruner = name, pruner or "none"
    hpo = hn.HPOTrialManager(f"{entry}-{seed}", options.budget, sampler=sampler, pruner=pruner, seed=seed)
    hpo.optimize(objective_of(example, options.epochs, seed), SPACE, callbacks=[ends_with_budget], show_progress=False)
    finite = [value for value in spent[: options.budget] if np.isfinite(value)]
    return {"best": min(finite), "trials": len(hpo.study.trials)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", nargs="+", default=["pbt", "random", "tpe-asha", "auto-asha"])
    parser.add_argument("--epochs", type=int, default=40, help="of a whole training")
    parser.add_argument("--budget", type=int, default=640, help="epochs of a study")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    example = importlib.import_module("objective")
    found: dict[str, list[dict[str, float]]] = {entry: [] for entry in options.entries}
    for seed in range(options.seeds):
        for entry in options.entries:
            found[entry].append(run(entry, example, seed, options))
            print(f"seed {seed}  {entry:10}  {found[entry][-1]}", file=sys.stderr, flush=True)
    print(f"{options.budget} epochs, {options.epochs} a whole training, {options.seeds} seeds")
    print(f"{'':12}{'best loss':>10}{'quartiles':>20}{'trials':>8}")
    for entry, runs in found.items():
        low, middle, high = statistics.quantiles((one["best"] for one in runs), n=4)
        trials = statistics.median(one["trials"] for one in runs)
        print(f"{entry:12}{middle:10.4f}{f'{low:.4f} to {high:.4f}':>20}{trials:8.0f}")
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": str(options.json)}, "runs": found}))


if __name__ == "__main__":
    main()
