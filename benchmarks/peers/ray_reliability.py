"""Ray Tune in `benchmarks.peers.reliability`: `python ray_reliability.py FOLDER`, in the environment of ray.txt.

As its documentation has it for long studies: failed trials are repeated, and a driver that is started again goes on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# On a busy machine its services take longer than the half minute that it waits for them.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")

import ray
from ray import tune
from training_record import N_TRIALS, SLOTS, train

NAME = "peers"


def trainable(config: dict[str, Any]) -> None:
    """One trial, as a function that reports."""
    train(config["x"], lambda value, step: tune.report({"loss": value}))


def main() -> None:
    """Starts the study, or continues it where it was begun."""
    folder = Path(sys.argv[1]).resolve()
    # Of Ray's own processes; Unix sockets need a short path.
    ray.init(num_cpus=SLOTS, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    if tune.Tuner.can_restore(str(folder / NAME)):
        tuner = tune.Tuner.restore(str(folder / NAME), trainable, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={"x": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=N_TRIALS, max_concurrent_trials=SLOTS),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str(folder),
                failure_config=tune.FailureConfig(max_failures=3),
                verbose=0,
            ),
        )
    tuner.fit()


if __name__ == "__main__":
    main()
