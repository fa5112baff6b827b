"""What an objective calls about its trial: `report`, `log`, `should_prune`, `report_params`, `trial_seed`,
`trial_settings`, `save_artifact`, `checkpoint_dir`, `checkpoint_saved` and `scratch_dir`.

The same in process and in a worker's trial process, the first three also as methods of HPOTrialManager. They use the
channel that the runner of the attempt has bound.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from highnoon.shared.objective.trial_context import channel, checkpoints, scratch, seed, settings


def report(value: float, step: int) -> None:
    """Records an intermediate value, usually once per epoch; the first value of a step wins.

    Raises NoTrialRunning outside an objective, InvalidInput for what is not a number or not a step.
    """
    channel().report(value, step)


def log(step: int | None = None, **metrics: float) -> None:
    """Keeps numbers beside the value: the last of each, by its step where there is one, is stored with the trial.

    A trial keeps some thousand metrics (500 KB as JSON), the first that it logs; others are left out with a warning.
    A metric that is logged again is a curve too, as `metric_history` gives it: up to 200 of its values, evenly spaced,
    for 30 metrics. Without a step a value follows the one before it. Of a point with repeats the first one is drawn.

    Raises NoTrialRunning outside an objective, InvalidInput for what is not a number or not a step.
    """
    channel().log(metrics, step)


def should_prune() -> bool:
    """True when the study's pruner would end this trial now. Raises NoTrialRunning outside an objective."""
    return channel().should_prune()


def report_params(params: int, active_params: int | None = None) -> None:
    """Reports how many parameters this trial's model has; with a param_budget, call it before the first report.

    `active_params` are those that one input uses (mixtures of experts); they are stored and never scored.
    Raises NoTrialRunning outside an objective, InvalidInput for what is not a count, InvalidObjectiveResult for another
    count than reports were scored with, and TrialStopped beyond a hard budget.
    """
    channel().report_params(params, active_params)


def trial_seed() -> int:
    """The seed of this trial, or of this repeat of it: for generators of your own, such as `random_state`.

    It follows from the study's seed and is the same in a retry. Raises NoTrialRunning outside an objective.
    """
    return seed()


def trial_settings() -> dict[str, Any]:
    """What a person set when this trial was made to train longer, such as {"epochs": 20}; {} for every other trial.

    See `StudyHandle.extend_trial`. `Trainer` takes `epochs` from there by itself. Raises NoTrialRunning outside an
    objective.
    """
    return dict(settings())


def save_artifact(path: str | os.PathLike[str], name: str | None = None) -> None:
    """Keeps a file with the trial, such as its model: a copy is made now, and stored while the trial goes on.

    It appears with the trial's outcome, by its own name or `name`; one that is saved again by the same name replaces
    the earlier one. Raises NoTrialRunning outside an objective, InvalidInput for what is no file, beyond 100 files or
    the limit of their size, and OSError for a disk that is full.
    """
    channel().save_artifact(path, name)


def checkpoint_dir() -> Path:
    """The trial's own folder: a retry finds there what the attempt before it has saved.

    It is removed when the trial is over. On another machine a retry finds what was stored of it, where the cluster has
    a store (HIGHNOON_ARTIFACTS_URL): what was there at a report, every HIGHNOON_CHECKPOINT_S seconds. In process
    nothing is retried: there it is a temporary folder. Raises NoTrialRunning outside an objective.
    """
    return checkpoints().path()


def scratch_dir() -> Path:
    """A folder for files that this trial alone needs, on a disk of its machine: removed when the trial is over.

    The working directory is that of the study, which trials share. Each repeat of a trial has its own. Raises
    NoTrialRunning outside an objective.
    """
    return scratch().path()


def checkpoint_saved() -> None:
    """Marks `checkpoint_dir()` as complete now, for code that saves at other times than just before a report.

    It is packed here when an interval is over, and from now on at these calls only. Raises NoTrialRunning.
    """
    channel().checkpoint_saved()
