"""Syne Tune, local backend, in `benchmarks.peers.throughput`; runs in its environment, prints end times as JSON.

`python syne_throughput.py WORK TRIALS SLOTS`
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import uniform
from syne_tune.optimizer.baselines import RandomSearch
from syne_tune.tuner_callback import TunerCallback

sys.path.insert(0, str(Path(__file__).parent))

from work import SPACE


class EndTimes(TunerCallback):  # type: ignore[misc]
    """Records when each trial ended."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_trial_complete(self, trial: Any, result: dict[str, Any]) -> None:
        """Records the time."""
        self.times.append(time.time())


def main() -> None:
    """Runs one study."""
    work, n_trials, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logging.getLogger().setLevel(logging.ERROR)
    ends = EndTimes()
    space = {"work": work, **{name: uniform(*bounds) for name, bounds in SPACE.items()}}
    tuner = Tuner(
        trial_backend=LocalBackend(
            entry_point=str(Path(__file__).with_name("syne_throughput_trial.py")), num_gpus_per_trial=0
        ),
        scheduler=RandomSearch(space, metrics=["loss"], random_seed=1),
        stop_criterion=StoppingCriterion(max_num_trials_finished=n_trials),
        n_workers=slots,
        sleep_time=0.05,
        callbacks=[ends],
        save_tuner=False,
    )
    tuner.run()
    print(json.dumps(ends.times))


if __name__ == "__main__":
    main()
