"""Syne Tune, local backend, in `benchmarks.peers.reliability`: `python syne_reliability.py FOLDER`.

Runs in the environment of syne.txt. A driver that is started again goes on from the tuner's file, as its documentation
has it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import uniform
from syne_tune.constants import ST_TUNER_DILL_FILENAME
from syne_tune.optimizer.baselines import RandomSearch
from syne_tune.util import experiment_path
from training_record import N_TRIALS, SLOTS

NAME = "peers"


def main() -> None:
    """Starts the study, or continues it where it was begun."""
    logging.getLogger().setLevel(logging.ERROR)
    name = f"{NAME}-{Path(sys.argv[1]).name}".replace("_", "-")
    kept = experiment_path(name)
    if (kept / ST_TUNER_DILL_FILENAME).exists():
        tuner = Tuner.load(str(kept))
    else:
        tuner = Tuner(
            trial_backend=LocalBackend(
                str(Path(__file__).with_name("syne_reliability_trial.py")), num_gpus_per_trial=0
            ),
            scheduler=RandomSearch({"x": uniform(0.0, 1.0)}, metrics=["loss"], random_seed=1),
            stop_criterion=StoppingCriterion(max_num_trials_completed=N_TRIALS),
            n_workers=SLOTS,
            sleep_time=0.1,
            max_failures=N_TRIALS,
            tuner_name=name,
            suffix_tuner_name=False,
            results_update_interval=1.0,
        )
    tuner.run()


if __name__ == "__main__":
    main()
