"""Ray Tune in `benchmarks.peers.throughput`; runs in its environment, prints the times at which trials ended as JSON.

`python ray_throughput.py WORK TRIALS SLOTS default|reuse`
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# On a busy machine its services take longer than the half minute that it waits for them.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")

import ray
from ray import tune
from work import SPACE, WORK


class EndTimes(tune.Callback):  # type: ignore[misc]
    """Records when each trial ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Records the time."""
        self.times.append(time.time())


class Trainable(tune.Trainable):  # type: ignore[misc]
    """A class, since only these can be reset for the next trial. One step is a whole trial without reports."""

    def setup(self, config: dict[str, Any]) -> None:
        """Keeps the parameters and which work it is."""
        self.params = config

    def step(self) -> dict[str, Any]:
        """The whole trial."""
        return {"loss": WORK[self.params["work"]](self.params, lambda value, step: True), "done": True}

    def reset_config(self, config: dict[str, Any]) -> bool:
        """The next trial in the same actor."""
        self.params = config
        return True


def function(config: dict[str, Any]) -> None:
    """The usual kind of trainable: a function that reports."""

    def report(value: float, step: int) -> bool:
        tune.report({"loss": value})
        return True

    tune.report({"loss": WORK[config["work"]](config, report)})


def main() -> None:
    """Runs one study."""
    work, n_trials, slots, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ends = EndTimes()
    scheduler = None
    if work == "hundred_reports":
        scheduler = tune.schedulers.MedianStoppingRule(time_attr="training_iteration", grace_period=1)
    tuner = tune.Tuner(
        Trainable if mode == "reuse" else function,
        param_space={"work": work, **{name: tune.uniform(*bounds) for name, bounds in SPACE.items()}},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=n_trials,
            max_concurrent_trials=slots,
            reuse_actors=mode == "reuse",
            scheduler=scheduler,
        ),
        run_config=tune.RunConfig(
            verbose=0,
            callbacks=[ends],
            storage_path=os.environ["PEERS_FOLDER"],
            checkpoint_config=None if mode == "default" else tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()
    print(json.dumps(ends.times))


if __name__ == "__main__":
    main()
